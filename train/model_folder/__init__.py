"""A finished model folder: weights, tokenizer, code, record, card."""
