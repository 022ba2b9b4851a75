"""Losses: pure functions, the objectives they are put together to, and the classifier of labels."""
