"""Training under Lightning: modules for bare and wrapped models, checkpoints and multi-process training."""
