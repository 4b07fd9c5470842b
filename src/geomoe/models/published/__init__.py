"""Checkpoints of the published programs: how each family lays its tensors out, and the way to ours and back.

A module a family: by what its files are known, what of the configuration their shapes tell, and a list of
rules from which both directions follow. Written from the names and shapes that the programs give their
tensors.
"""

from geomoe.models.published.convert import convert
from geomoe.models.published.families import LAYOUTS, recognise
from geomoe.models.published.layout import Layout, Rule, State, to_ours, to_published

__all__ = ["LAYOUTS", "Layout", "Rule", "State", "convert", "recognise", "to_ours", "to_published"]
