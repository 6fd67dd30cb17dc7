"""Figures of finished runs, drawn with matplotlib."""
