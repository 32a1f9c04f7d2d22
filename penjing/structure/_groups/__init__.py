"""From labelled values to groups of units, and what stays frozen."""
