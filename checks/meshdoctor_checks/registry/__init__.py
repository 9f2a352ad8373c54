"""Checks 2xx: what stands in Consul's catalogue."""
