"""Speed and memory against the targets: one benchmark a module, one form of results for all."""
