"""An audit as one page of HTML that needs no other file, no script and no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from geomoe.audit.report.cells import Column, columns, with_minus
from geomoe.audit.report.figures import Drawn
from geomoe.audit.request import Request
from geomoe.audit.run import Audit
from geomoe.audit.section import Finding, Level, Section
from geomoe.audit.sections import SECTIONS
from geomoe.printable import printable

__all__ = ["page"]

_WORST: tuple[Level, ...] = ("fault", "warning", "sound", "note")
_SIGNS = {"fault": "×", "warning": "!", "sound": "✓", "note": "i"}
_MANY = 60
"""Entries, from which the page counts what the manifest lists."""
_LONG = 8
"""Of a list, shown."""


@dataclass(frozen=True)
class _Figure:
    number: int
    name: str
    caption: str
    drawn: Drawn


@dataclass(frozen=True)
class _Table:
    number: int
    name: str
    caption: str
    columns: list[Column]

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        return zip(*(column.texts for column in self.columns), strict=True)


@dataclass(frozen=True)
class _Section:
    name: str
    title: str
    paragraphs: list[str]
    findings: Sequence[Finding]
    figures: list[_Figure]
    tables: list[_Table]
    command: str

    @property
    def level(self) -> Level:
        """Its worst."""
        return min((finding.level for finding in self.findings), key=_WORST.index, default="note")


def page(audit: Audit, drawn: Mapping[str, Drawn]) -> str:
    """The page of an audit, a pure function of what it is given.

    Args:
        audit: that it tells of.
        drawn: its figures, by name.
    """
    room = files("geomoe.audit.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_plain
    )
    environment.filters["minus"] = with_minus
    template = environment.from_string((room / "page.html").read_text("utf-8"))
    return template.render(
        audit=audit,
        style=(room / "page.css").read_text("utf-8"),
        signs=_SIGNS,
        sections=_numbered(audit, drawn),
        manifest=list(_groups(audit.manifest)),
    )


def _plain(value: Any) -> Any:
    """What is put into the page; a name may hold what a page may not."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def _numbered(audit: Audit, drawn: Mapping[str, Drawn]) -> list[_Section]:
    """Figures and tables have numbers of their own, through all sections."""
    found: list[_Section] = []
    figures = tables = 0
    for section in audit.sections:
        found.append(
            _Section(
                section.name,
                section.title,
                section.text.split("\n\n"),
                section.findings,
                [
                    _Figure(figures + i, figure.name, figure.caption, drawn[figure.name])
                    for i, figure in enumerate(section.figures, 1)
                ],
                [
                    _Table(tables + i, table.name, table.caption, columns(table))
                    for i, table in enumerate(section.tables, 1)
                ],
                _command(audit, section),
            )
        )
        figures += len(section.figures)
        tables += len(section.tables)
    return found


def _command(audit: Audit, section: Section) -> str:
    """Makes this section alone; empty where the audit was not made by the command."""
    asked = audit.manifest.get("request")
    if not asked:
        return ""
    request = Request.of(asked)
    by_itself = section.name in [question.__name__ for question in SECTIONS]
    alone = replace(request, only=(section.name,), against=(), benchmark=None)
    return (alone if by_itself else request).command()


def _groups(manifest: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Facts of a manifest by group: title, and name and text of each."""
    for name, value in manifest.items():
        if name == "request":  # the command says it
            continue
        if isinstance(value, Mapping) and len(value) < _MANY:
            yield name, [(key, _said(fact)) for key, fact in value.items()]
        elif isinstance(value, Mapping):
            yield name, [("in all", f"{len(value)}, by name in manifest.json")]


def _said(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return "; ".join(f"{key}: {_said(value)}" for key, value in fact.items()) or "none"
    if isinstance(fact, Sequence) and not isinstance(fact, str):
        shown = "; ".join(map(_said, fact[:_LONG]))  # names of classes have commas
        return f"{shown} … {len(fact)} in all" if len(fact) > _LONG else shown or "none"
    return "–" if fact is None or fact == "" else str(fact)
