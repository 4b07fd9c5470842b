"""Tables of an audit in LaTeX, for a paper."""

from __future__ import annotations

from geomoe.audit.report.cells import Column, columns
from geomoe.audit.section import Table
from geomoe.printable import printable

__all__ = ["latex", "tex"]

_TEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", '"': "''"}
    | {"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$"}
    | {"→": r"$\to$", "∞": r"$\infty$", "…": r"\dots{}"}
    | {"–": "--", "°": r"$^\circ$", "²": "$^2$", "µ": r"$\mu$", "’": "'", "“": "``", "”": "''"}
)  # fmt: skip
_LONG = 40
"""Characters of a text, from which its column breaks lines."""
_WIDE = 9
"""Columns, from which a table is made as wide as the page."""


def tex(text: str) -> str:
    """A text as LaTeX shows it, whatever is in it."""
    return printable(text).translate(_TEX)


def latex(table: Table) -> str:
    r"""A ``table`` environment with ``\label{tab:NAME}``; wants booktabs, and graphicx where it is wide."""
    shown = columns(table)
    wide = len(shown) >= _WIDE
    rows = zip(*(column.texts for column in shown), strict=True) if table.rows else []
    tabular = [
        rf"\begin{{tabular}}{{{''.join(map(_alignment, shown))}}}",
        r"\toprule",
        _line(column.title for column in shown),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(
        [
            r"\begin{table*}" if wide else r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            *([r"\resizebox{\textwidth}{!}{%", *tabular[:-1], tabular[-1] + "}"] if wide else tabular),
            r"\end{table*}" if wide else r"\end{table}",
            "",
        ]
    )


def _alignment(column: Column) -> str:
    if column.numeric:
        return "r"
    return "p{6cm}" if max(map(len, column.texts), default=0) > _LONG else "l"


def _line(texts: object) -> str:
    return " & ".join(map(tex, texts)) + r" \\"  # type: ignore[call-overload]
