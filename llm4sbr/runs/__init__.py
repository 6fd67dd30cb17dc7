"""Runs: start one, record it, find it again, resume it, repeat it."""
