"""The record of a search: candidates, workers, storage, report."""
