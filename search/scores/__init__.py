"""How candidates are rated, from cheap to expensive."""
