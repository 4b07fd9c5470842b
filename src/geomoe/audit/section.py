"""What an audit finds: sections of tables, figures and findings, which a report lays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["TIMINGS", "Cell", "Figure", "Finding", "Level", "Section", "Table"]

TIMINGS = "timings"
"""Key of a section's data below which stands what a clock says, and what no run finds twice."""

Level = Literal["fault", "warning", "sound", "note"]
"""A fault is shown in red and decides the verdict; ``sound`` says that a check was made and passed."""

Cell = str | float | int | None
"""Numbers are rounded by the report; None is a dash."""


@dataclass(frozen=True)
class Finding:
    """One line of what a check says.

    Attributes:
        level: how bad it is.
        code: short name of the check and outcome, such as ``untrained_router``; tests and tools go by it.
        text: one sentence in plain English, with the figures that it rests on.
    """

    level: Level
    code: str
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of figures under a caption; ``name`` is unique in the audit, in lower case and underscores."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption.

    Attributes:
        name: unique in the audit, in lower case and underscores.
        caption: what it shows, in a sentence or two; units included.
        draw: draws it on an empty matplotlib figure, whose size it may set.
    """

    name: str
    caption: str
    draw: Callable[[Drawing], None]


@dataclass(frozen=True)
class Section:
    """One question, and what was found of it.

    Attributes:
        name: in lower case and underscores, such as ``usage``.
        title: the question in words, such as "Which experts are used?".
        text: how it was measured, in a few sentences.
        findings: of most weight first.
        tables, figures: in the order of reading.
        data: the same in numbers, for JSON: plain lists, dictionaries, strings, numbers and None; what was
            timed stands below :data:`TIMINGS`.
    """

    name: str
    title: str
    text: str
    findings: tuple[Finding, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
