"""Metric modules for `evaluate` that need no network."""
