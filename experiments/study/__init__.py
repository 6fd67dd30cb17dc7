"""What the experiments' commands are made of: one subject a module, one results file a study."""
