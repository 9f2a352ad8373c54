"""The report as a value, and one module for each format it is written in."""
