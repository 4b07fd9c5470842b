"""Evaluation of models that make images larger: protocols, sources, pictures, invention."""
