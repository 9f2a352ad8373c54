"""Checks 4xx: where calls go."""
