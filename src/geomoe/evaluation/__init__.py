"""What judges: evaluation runs."""
