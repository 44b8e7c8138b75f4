"""The search space, its costs, the supernet and the search."""
