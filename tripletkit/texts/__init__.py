"""Results as lines of text, as a terminal or a notebook shows them."""
