"""Measurements of what trainkit costs; each module is run as `python -m benchmarks.<name>`."""
