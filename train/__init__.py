"""Distillation, fine-tuning, evaluation, conversion and upload."""
