"""Training under Lightning: the bare module, the wrapper, and what makes many processes one."""
