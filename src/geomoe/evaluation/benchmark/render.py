"""A table as Markdown, LaTeX and one self-contained page of HTML, all with the same cells."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path

from geomoe.evaluation.benchmark.cost import Cost
from geomoe.evaluation.benchmark.table import Row, Table
from geomoe.evaluation.statistics import Interval
from geomoe.metrics.measures import measure

__all__ = ["cells", "group_cells", "html", "latex", "markdown"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1rem; }
dt { color: #666; }
dd { margin: 0; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #222; }
tr.flagship { background: #eef4fb; font-weight: 600; }
img { max-width: 100%; }
"""


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Titles of the columns, and the text of every cell by row."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("arm", lambda r: r.label),
        ("parameters", _cost(lambda c: f"{c.parameters:,}")),
        ("active per pixel", _cost(lambda c: f"{c.active:,}")),
        ("GMAC", _cost(lambda c: f"{c.gmac:.2f}" if c.gmac >= 1 else f"{c.gmac:.3g}")),
        ("s/tile", _cost(lambda c: f"{c.seconds:.3g}")),
        ("peak MB", _cost(lambda c: f"{c.peak_mb:.0f}")),
        ("training min", lambda r: f"{r.training_seconds / 60:.1f}"),
    ]
    metrics = list(table.rows[0].scores)
    columns += [(_title(name), partial(_score, name)) for name in metrics]
    columns += [
        (
            f"{measure(table.ranks).unit or measure(table.ranks).title} to {table.flagship}",
            _difference(table),
        ),
        ("p", lambda r: "" if r.p is None else "< 0.0001" if r.p < 1e-4 else f"{r.p:.4f}"),
    ]
    printed = [name for name in metrics if any(name in row.paper for row in table.rows)]
    columns += [(f"paper: {measure(name).title}", partial(_paper, name)) for name in printed]
    return [title for title, _ in columns], [[text(row) for _, text in columns] for row in table.rows]


def _cost(text: Callable[[Cost], str]) -> Callable[[Row], str]:
    return lambda row: "" if row.cost is None else text(row.cost)


def _title(metric: str) -> str:
    return f"{measure(metric).title} {measure(metric).unit}".rstrip()


def _score(metric: str, row: Row) -> str:
    digits, found = measure(metric).digits, row.scores[metric]
    return f"{found.mean:.{digits}f} ± {found.half:.{digits}f}"


def _difference(table: Table) -> Callable[[Row], str]:
    return lambda row: "" if row.difference is None else _ends(row.difference, table.ranks)


def _ends(d: Interval, metric: str) -> str:
    digits = measure(metric).digits
    return f"{d.mean:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"


def _paper(metric: str, row: Row) -> str:
    return f"{row.paper[metric]:.4f}" if metric in row.paper else ""


def group_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """The same of the table by sensor and source: scores of the flagship, differences to it of the others."""
    rows = [row for row in table.rows if row.arm == table.flagship]
    rows += [row for row in table.rows if row.arm != table.flagship]
    titles = ["on", "input", "samples", "baseline", *(row.label for row in rows)]
    lines, digits = [], measure(table.ranks).digits
    for group in table.groups:
        line = [group.name, group.degradation, str(group.images), f"{group.baseline:.{digits}f}"]
        for row in rows:
            cell = group.cells[row.arm]
            difference = cell.difference
            score = f"{cell.score.mean:.{digits}f}"
            line.append(score if difference is None else _ends(difference, table.ranks))
        lines.append(line)
    return titles, lines


def markdown(table: Table) -> str:
    """For a README."""
    titles, rows = cells(table)
    lines = [f"# {table.title}", ""]
    lines += [f"- {name}: {value}" for name, value in table.header.items()]
    lines += ["", *_grid(titles, rows)]
    if table.groups:
        lines += ["", *_grid(*group_cells(table))]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def _grid(titles: list[str], rows: list[list[str]]) -> list[str]:
    return [_line(titles), "|---" + "|---:" * (len(titles) - 1) + "|", *map(_line, rows)]


def _line(texts: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def latex(table: Table) -> str:
    """A ``table`` environment; needs no package."""
    said = "; ".join(f"{name} {value}" for name, value in table.header.items())
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{_tex(table.title)}. {_tex(said)}. {_tex(' '.join(table.notes))}}}",
            *_tabular(*cells(table)),
            *(_tabular(*group_cells(table)) if table.groups else ()),
            r"\end{table*}",
            "",
        ]
    )


def _tabular(titles: list[str], rows: list[list[str]]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
        r"\hline",
        " & ".join(_tex(title) for title in titles) + r" \\",
        r"\hline",
        *(" & ".join(_tex(text) for text in row) + r" \\" for row in rows),
        r"\hline",
        r"\end{tabular}",
    ]


_TEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "<": "$<$", ">": "$>$"}
)


def _tex(text: str) -> str:
    return text.translate(_TEX)


def html(table: Table, curves: Path | None = None) -> str:
    """A page that needs no other file; ``curves`` is a PNG to put inside."""
    marks = [_marked(row, table) for row in table.rows]
    tables = _html_table(*cells(table), marks)
    if table.groups:
        tables += _html_table(*group_cells(table), [""] * len(table.groups))
    header = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in table.header.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    picture = ""
    if curves is not None:
        data = base64.b64encode(curves.read_bytes()).decode()
        picture = f'<p><img alt="Validation by step" src="data:image/png;base64,{data}"></p>\n'
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(table.title)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{escape(table.title)}</h1>\n<dl>{header}</dl>\n"
        f"{tables}<ul>{notes}</ul>\n{picture}</html>\n"
    )


def _html_table(titles: list[str], rows: list[list[str]], marks: list[str]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "\n".join(
        f"<tr{mark}>" + "".join(f"<td>{escape(text)}</td>" for text in texts) + "</tr>"
        for mark, texts in zip(marks, rows, strict=True)
    )
    return f"<div><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n"


def _marked(row: Row, table: Table) -> str:
    return ' class="flagship"' if row.arm == table.flagship else ""
