"""Checks 6xx: what real requests met."""
