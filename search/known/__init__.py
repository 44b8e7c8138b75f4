"""What is known before any training: small encoders that were trained once, and what they tell of others."""
