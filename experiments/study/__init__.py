"""Commands of the experiments and their parts: one subject per module, one results file per study."""
