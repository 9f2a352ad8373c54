"""Checks 1xx: Consul, Registrator, Pilot and what else the mesh is steered by."""
