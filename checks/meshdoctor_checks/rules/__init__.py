"""Checks 5xx: VirtualServices and DestinationRules."""
