"""Outputs: metadata, pixels collected on the disk, cloud-optimised GeoTIFFs, put in place in one step."""
