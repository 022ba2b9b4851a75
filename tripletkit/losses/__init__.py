"""Losses: pure functions of distances, embeddings and classes, and mining within a batch."""
