"""Labelled tasks: their data, what models make of it, and what that is worth."""
