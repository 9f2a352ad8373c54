"""What checks say of Compose files before anything runs, by the family of the check.

A function here judges what its namesake judges of a mesh. Its sentences say what would happen,
and nothing of what is running.
"""
