"""A table as Markdown, LaTeX and one self-contained page of HTML, all with the same cells."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path

from geomoe.evaluation.benchmark.cost import Cost
from geomoe.evaluation.benchmark.table import Row, Table
from geomoe.evaluation.statistics import Interval
from geomoe.metrics.measures import measure

__all__ = ["cells", "group_cells", "html", "latex", "markdown", "scaling_cells"]

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
figure { margin: 1rem 0; }
figcaption { color: #444; }
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
        *_twins(table),
        ("training min", lambda r: f"{r.training_seconds / 60:.1f}"),
    ]
    metrics = list(dict.fromkeys(name for row in table.rows for name in row.scores))  # older runs have fewer
    columns += [(_title(name), partial(_score, name)) for name in metrics]
    several = len({row.beside for row in table.rows}) > 1
    columns += [("beside", lambda r: "" if r.arm == r.beside else r.beside)] if several else []
    columns += [
        (
            f"{measure(table.ranks).unit or measure(table.ranks).title} to "
            f"{'that arm' if several else table.flagship}",
            _difference(table),
        ),
    ]
    if any(row.p is not None for row in table.rows):  # of one sample there is no test
        columns.append(("p", lambda r: "" if r.p is None else "< 0.0001" if r.p < 1e-4 else f"{r.p:.4f}"))
    printed = [name for name in metrics if any(name in row.paper for row in table.rows)]
    columns += [(f"paper: {measure(name).title}", partial(_paper, name)) for name in printed]
    return [title for title, _ in columns], [[text(row) for _, text in columns] for row in table.rows]


def _twins(table: Table) -> list[tuple[str, Callable[[Row], str]]]:
    """What is a twin, and by how much it misses the size and cost of what it is a twin of."""
    costs = {row.arm: row.cost for row in table.rows}

    def missed(of: Callable[[Cost], float]) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            rival = costs.get(row.beside)
            if rival is None or row.cost is None or row.arm == row.beside:
                return ""
            return f"{100 * (of(row.cost) / of(rival) - 1):+.1f} %"

        return text

    if not any(row.twin for row in table.rows):
        return []
    return [
        ("twin", lambda row: row.twin),
        ("parameters +/-", missed(lambda c: c.parameters)),
        ("active +/-", missed(lambda c: c.active)),
        ("GMAC +/-", missed(lambda c: c.gmac)),
    ]


def _cost(text: Callable[[Cost], str]) -> Callable[[Row], str]:
    return lambda row: "" if row.cost is None else text(row.cost)


def _title(metric: str) -> str:
    return f"{measure(metric).title} {measure(metric).unit}".rstrip()


def _score(metric: str, row: Row) -> str:
    if metric not in row.scores:
        return ""
    digits, found = measure(metric).digits, row.scores[metric]
    # Of one score no interval is known.
    return f"{found.mean:.{digits}f}" + (f" ± {found.half:.{digits}f}" if found.half else "")


def _difference(table: Table) -> Callable[[Row], str]:
    return lambda row: "" if row.difference is None else _ends(row.difference, table.ranks)


def _ends(d: Interval, metric: str) -> str:
    digits = measure(metric).digits
    return f"{d.mean:+.{digits}f}" + (f" [{d.low:+.{digits}f}, {d.high:+.{digits}f}]" if d.half else "")


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


def scaling_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """The arms of a sweep, by where they stand in it."""
    rows = sorted((row for row in table.rows if row.at), key=lambda row: list(row.at.values()))
    keys = list(dict.fromkeys(key for row in rows for key in row.at))
    columns: list[tuple[str, Callable[[Row], str]]] = [
        *((key, partial(_at, key)) for key in keys),
        ("parameters", _cost(lambda c: f"{c.parameters:,}")),
        ("active per pixel", _cost(lambda c: f"{c.active:,}")),
        ("GMAC", _cost(lambda c: f"{c.gmac:.3g}")),
        (_title(table.ranks), partial(_score, table.ranks)),
    ]
    return [title for title, _ in columns], [[text(row) for _, text in columns] for row in rows]


def _at(key: str, row: Row) -> str:
    return f"{row.at[key]:g}" if key in row.at else ""


def markdown(table: Table) -> str:
    """For a README."""
    titles, rows = cells(table)
    lines = [f"# {table.title}", ""]
    lines += [f"- {name}: {value}" for name, value in table.header.items()]
    lines += ["", *_grid(titles, rows)]
    for titles, rows in _further(table):
        lines += ["", *_grid(titles, rows)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def _further(table: Table) -> list[tuple[list[str], list[list[str]]]]:
    """Tables beside the main one: by sensor and source, and of a sweep."""
    groups = [group_cells(table)] if table.groups else []
    return groups + ([scaling_cells(table)] if any(row.at for row in table.rows) else [])


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
            *(line for grid in _further(table) for line in _tabular(*grid)),
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


def html(table: Table, pictures: Mapping[str, Path] | None = None) -> str:
    """A page that needs no other file; ``pictures`` are PNGs to put inside, by what they show."""
    marks = [_marked(row, table) for row in table.rows]
    tables = _html_table(*cells(table), marks)
    for titles, rows in _further(table):
        tables += _html_table(titles, rows, [""] * len(rows))
    header = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in table.header.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    shown = ""
    for words, path in (pictures or {}).items():
        data = base64.b64encode(path.read_bytes()).decode()
        picture = f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'
        shown += f"<figure>{picture}<figcaption>{escape(words)}</figcaption></figure>\n"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(table.title)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{escape(table.title)}</h1>\n<dl>{header}</dl>\n"
        f"{tables}<ul>{notes}</ul>\n{shown}</html>\n"
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
