"""Strategies, clusters and the launcher: where a run's processes live."""
