"""Training: how a model comes to be."""
