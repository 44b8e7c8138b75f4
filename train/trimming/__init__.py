"""A vocabulary cut to what a corpus needs, and the model with it."""
