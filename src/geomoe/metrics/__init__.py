"""Metrics, and the named protocols that fix what they compare."""
