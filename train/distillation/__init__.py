"""Distillation: what is captured of teacher and student, compared, and scored."""
