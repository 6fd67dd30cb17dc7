"""Tuning stage 1: a LoRA adapter that teaches a small language model what this shop's visitors click next."""
