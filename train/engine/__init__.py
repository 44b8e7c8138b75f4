"""The training loop: batches in order, steps, checkpoints."""
