"""Routers: scores, choices and what lies between them make a plan."""
