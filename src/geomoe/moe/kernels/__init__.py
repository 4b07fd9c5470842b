"""Arithmetic of many small products, and of gates, by torch and Triton alone."""
