"""All layouts that are known, in the order in which a file is compared with them."""

from __future__ import annotations

from geomoe.errors import GeomoeError
from geomoe.models.published.hat import HAT
from geomoe.models.published.layout import Layout, State
from geomoe.models.published.swinir import SWINIR

__all__ = ["LAYOUTS", "recognise"]

LAYOUTS: tuple[Layout, ...] = (HAT, SWINIR)
"""Those that build on others before the others: HAT's files hold all that SwinIR's are known by."""


def recognise(state: State) -> Layout:
    """The layout of a published state; raises GeomoeError for any other."""
    for layout in LAYOUTS:
        if layout.recognises(state):
            return layout
    known = ", ".join(sorted({layout.name for layout in LAYOUTS}))
    raise GeomoeError(f"its tensors are of no network that is known here; there are: {known}")
