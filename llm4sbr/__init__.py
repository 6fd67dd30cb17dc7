"""Session-based recommendation with what a large language model understands of the items."""
