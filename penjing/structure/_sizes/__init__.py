"""Sizes that code computes, and counts of units that satisfy them."""
