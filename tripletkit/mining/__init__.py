"""Mining: which triplets of labelled images to learn from, within a batch or ahead of training."""
