"""Banks of experts, and experts on several processes."""
