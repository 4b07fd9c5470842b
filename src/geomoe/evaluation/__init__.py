"""What judges: evaluation runs, and pictures of what models make of one image."""
