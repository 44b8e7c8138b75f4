"""Supernets: weights shared by all architectures of a space."""
