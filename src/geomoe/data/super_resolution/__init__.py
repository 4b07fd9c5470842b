"""Pairs of images for super-resolution: measured, degraded, made, or mixed of several sources."""
