"""The space of architectures: what may be chosen, drawn, changed."""
