"""Tuning for stage 1: a LoRA adapter that trains a small language model to predict the next clicks."""
