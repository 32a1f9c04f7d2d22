"""Labels: which indices of which dims disappear together."""
