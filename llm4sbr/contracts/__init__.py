"""Contracts and shared data types: batches, backbones, catalogues, examples and errors."""
