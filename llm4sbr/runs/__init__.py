"""Runs: start, record, load, resume and repeat a run."""
