"""Figures of an audit as SVG and PNG, of one look and with the same bytes each time. Needs matplotlib."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

import cmcrameri.cm  # noqa: F401  (makes its colour maps known to matplotlib)
import matplotlib
from cycler import cycler
from matplotlib.figure import Figure as Drawing

from geomoe.audit.section import Figure

__all__ = ["Drawn", "draw"]

_STYLE: Any = {
    # Okabe and Ito's colours: told apart with any common colour deficiency, and in this order on white.
    "axes.prop_cycle": cycler(
        color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
    ),
    "image.cmap": "cmc.batlow",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "0.35",
    "axes.axisbelow": True,
    "xtick.color": "0.35",
    "ytick.color": "0.35",
    "xtick.labelcolor": "0.15",
    "ytick.labelcolor": "0.15",
    "grid.color": "0.88",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    # Names of classes and layers are no formulas.
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "geomoe",
}

_DPI = 160
_HEAVY = 400_000
"""Bytes of an SVG, from which the page holds the PNG."""


@dataclass(frozen=True)
class Drawn:
    """A figure as files.

    Attributes:
        svg, png: their bytes.
        width, height: in CSS pixels.
    """

    svg: bytes
    png: bytes
    width: int
    height: int

    @property
    def source(self) -> str:
        """For an ``img`` of a page that needs no other file."""
        kind, data = ("svg+xml", self.svg) if len(self.svg) <= _HEAVY else ("png", self.png)
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def draw(figure: Figure) -> Drawn:
    """Draw a figure, whatever the user's settings of matplotlib."""
    with matplotlib.rc_context(matplotlib.rcParamsDefault), matplotlib.rc_context(_STYLE):
        drawing = Drawing(layout="constrained")
        figure.draw(drawing)
        svg, png = io.BytesIO(), io.BytesIO()
        drawing.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        drawing.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    width, height = (round(96 * inches) for inches in drawing.get_size_inches())
    # Texts are drawn as paths; the comments that repeat them may hold what XML may not.
    return Drawn(
        re.sub(rb"<!--.*?-->\n?", b"", svg.getvalue(), flags=re.DOTALL), png.getvalue(), width, height
    )
