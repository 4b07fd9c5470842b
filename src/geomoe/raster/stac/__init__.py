"""STAC items and collections: written, read and checked against schemas without a network."""
