"""geomoe."""
