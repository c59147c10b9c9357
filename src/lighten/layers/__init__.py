"""Building blocks that replacements are made of."""
