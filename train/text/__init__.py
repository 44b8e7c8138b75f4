"""Unlabelled text: from documents to batches."""
