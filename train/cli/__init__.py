"""Commands: arguments from flags and recipes, and errors in one line."""
