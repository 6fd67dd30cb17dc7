"""How good a view store is before anything is trained: measures, intervals, samples, a page."""
