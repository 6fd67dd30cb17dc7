"""Quality of the views in a store before training: metrics, intervals, samples and a page."""
