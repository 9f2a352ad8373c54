"""Checks 7xx: Consul's own service mesh."""
