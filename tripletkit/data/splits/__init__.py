"""Splits: images or triplets set apart, so that a score tells of what training has not seen."""
