"""Whether a model's routing earns its keep: what an honest Mixture-of-Experts result contains."""
