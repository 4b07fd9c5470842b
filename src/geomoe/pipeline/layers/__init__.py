"""Maps beside the image."""
