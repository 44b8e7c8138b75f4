"""What an architecture costs: parameters, FLOPs, measured latency."""
