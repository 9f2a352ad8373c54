"""Checks 3xx: the Envoys, and how connections get to them."""
