"""Terms that keep experts in use or make them differ, and what a training step asks."""
