"""The audit of triplets and their images: what can be told without a model."""
