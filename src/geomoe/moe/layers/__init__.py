"""A router and a bank put together, and mixtures without choices."""
