"""How fast everlearn is and how well it learns, always beside a peer in the same run: ``python -m benchmarks``."""
