"""Routers: scores, choices and what stands between them make a plan."""
