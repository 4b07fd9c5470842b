"""Tests of geomoe.pipeline."""
