"""Benchmarks of speed and memory against targets: one module per benchmark, one format of results."""
