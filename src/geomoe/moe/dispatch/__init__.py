"""A plan carried out on a bank, and the results combined."""
