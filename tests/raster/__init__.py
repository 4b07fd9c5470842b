"""Tests of geomoe.raster."""
