"""Routers: gate logits, their transforms and the selection of experts make a plan."""
