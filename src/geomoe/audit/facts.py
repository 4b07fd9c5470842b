"""What is known of each sample beside its image: class, sensor, region, date, by whatever names there are."""

from __future__ import annotations

import csv
import io
from calendar import month_name
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np

from geomoe.audit.subject import Subject
from geomoe.errors import GeomoeError
from geomoe.files import read_small

__all__ = ["facts_of", "read_facts"]

_CALLED = {"label": "class"}
"""Keys of samples that people call otherwise."""


def read_facts(path: Path) -> dict[str, dict[str, str]]:
    """Facts by the name of the sample, of a CSV file with a column ``name`` and one for each fact.

    Raises:
        GeomoeError: a file that cannot be read, or has no such column.
    """
    try:
        text = read_small(path).decode()
    except UnicodeDecodeError as error:
        raise GeomoeError(f"{path} is no text in UTF-8; save it as such") from error
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or "name" not in rows[0] or len(rows[0]) < 2:
        raise GeomoeError(f"{path} has no column called name and another one; its first line names columns")
    return {row.pop("name"): {key: value for key, value in row.items() if key and value} for row in rows}


def facts_of(subject: Subject) -> dict[str, list[str | None]]:
    """Values of each fact, sample by sample in the order of batches; facts that tell samples apart.

    Whole numbers that samples hold one of, what :attr:`Subject.facts` says, and the folder that a sample
    lies in. A date counts by its month, and numbers that are almost as many as samples by their quarter. A
    fact that has one value, or names that are almost as many as samples, is left out; so is a folder that
    says what another fact does.
    """
    found: dict[str, list[str | None]] = {}
    classes = [name for output in subject.model.contract.outputs.values() for name in output.classes]
    total = 0
    for names, batch in subject.batches():
        told: dict[str, list[str | None]] = {}
        for key, value in batch.items():
            if value.dim() == 1 and not value.is_floating_point():
                numbers = value.tolist()
                named = key == "label" and classes
                told[_CALLED.get(key, key)] = [classes[n] if named else str(n) for n in numbers]
        for key in sorted({key for name in names for key in subject.facts.get(name, {})}):
            told[key] = [_shown(subject.facts.get(name, {}).get(key)) for name in names]
        told["folder"] = [name.rpartition("/")[0] or None for name in names]
        for key, values in told.items():
            found.setdefault(key, [None] * total).extend(values)
        total += len(names)
        for values in found.values():
            values.extend([None] * (total - len(values)))
    by_quarter = {key: _quarters(values) for key, values in found.items()}
    telling = {key: values for key, values in by_quarter.items() if _tells(values)}
    folders = telling.pop("folder", None)
    if folders is not None and not any(_alike(folders, values) for values in telling.values()):
        telling["folder"] = folders
    return telling


def _shown(value: str | None) -> str | None:
    try:
        return None if value is None else month_name[date.fromisoformat(value[:10]).month]
    except ValueError:
        return value


def _quarters(values: list[str | None]) -> list[str | None]:
    """Numbers that are almost as many as samples, by the quarter of samples; all else as it is."""
    known = [value for value in values if value is not None]
    if len(set(known)) <= len(known) / 2:
        return values
    try:
        numbers = [None if value is None else float(value) for value in values]
    except ValueError:
        return values
    edges = np.quantile([number for number in numbers if number is not None], np.linspace(0, 1, 5))
    names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    places = [None if n is None else int(np.searchsorted(edges[1:-1], n)) for n in numbers]
    return [None if place is None else names[place] for place in places]


def _tells(values: list[str | None]) -> bool:
    known = [value for value in values if value is not None]
    return 2 <= len(set(known)) <= len(known) / 2


def _alike(a: list[str | None], b: list[str | None]) -> bool:
    """Whether two facts divide samples in the same way."""
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))
