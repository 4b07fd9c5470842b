"""Doing an audit again by its manifest, and comparing what is found number by number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomoe.audit.manifest import LARGEST, file_hash, hashes, machine, software
from geomoe.audit.plain import json_text
from geomoe.audit.request import Request
from geomoe.audit.run import Audit
from geomoe.audit.section import TIMINGS
from geomoe.audit.subject import Subject
from geomoe.errors import GeomoeError
from geomoe.files import read_small
from geomoe.models.weights import load
from geomoe.printable import counted

__all__ = ["TOLERANCE", "Difference", "Record", "differences", "read_record"]

TOLERANCE = 1e-3
"""Relative, of numbers of another machine or other libraries: a choice of an expert may turn on rounding."""

_SMALL = 1e-3
"""Smaller numbers may differ by as much as this one may."""


@dataclass(frozen=True)
class Difference:
    """A value that is not what it was.

    Attributes:
        place: where in the report, such as ``usage / blocks.1.ffn / load / 3``.
        was: in the report.
        is_now: again.
    """

    place: str
    was: Any
    is_now: Any

    def __str__(self) -> str:
        change = ""
        if _number(self.was) and _number(self.is_now) and self.was:
            change = f" ({(self.is_now - self.was) / abs(self.was):+.2g} of it)"
        return f"{self.place}: {self.was} was, {self.is_now} is{change}"


@dataclass(frozen=True)
class Record:
    """A report that was written.

    Attributes:
        manifest: of it.
        sections: by name, as in ``audit.json``.
    """

    manifest: dict[str, Any]
    sections: dict[str, dict[str, Any]]

    @property
    def request(self) -> Request:
        """What was asked; raises GeomoeError where the manifest does not say."""
        try:
            return Request.of(self.manifest["request"])
        except (AttributeError, KeyError, TypeError) as error:
            raise GeomoeError(f"the manifest does not say what was asked: {error}") from error

    @property
    def tolerance(self) -> float:
        """0 on the machine and with the libraries of the report, else :data:`TOLERANCE`."""
        now = {"machine": machine(), "software": software()}
        return 0.0 if all(self.manifest.get(name) == value for name, value in now.items()) else TOLERANCE

    def expect(self, subject: Subject) -> None:
        """Raise GeomoeError unless weights and samples are those of the report: before they are audited."""
        was = self.manifest["weights"]["hash"]
        if subject.model.hash != was:
            raise GeomoeError(
                f"{subject.model.name} are not the weights of the report: their hash is "
                f"{subject.model.hash[:12]}, expected {was[:12]}; give the right ones by --model"
            )
        others = self.manifest["weights"].get("compared with") or []
        others = [others] if isinstance(others, str) else others
        if len(others) != len(self.request.against):
            raise GeomoeError(
                f"the report compares with {counted(len(others), 'other network')}, where "
                f"{len(self.request.against)} are given"
            )
        for path, other in zip(self.request.against, others, strict=True):
            if (now := load(path)).hash != other:
                raise GeomoeError(
                    f"{now.name} are not the weights that the report compares with: their hash is "
                    f"{now.hash[:12]}, expected {other[:12]}"
                )
        scores = self.manifest.get("benchmark")
        if scores is not None and file_hash(self.request.benchmark) != scores["sha256"]:
            raise GeomoeError(f"{self.request.benchmark} is not the table of scores that the report cites")
        known, found = self.manifest["samples"], hashes(subject)
        apart = [name for name, of in known.items() if found.get(name) != of]
        apart += [name for name in found if name not in known]
        if apart:
            what = (
                "is not there"
                if apart[0] not in found
                else "is new"
                if apart[0] not in known
                else "is another"
            )
            more = f", and {len(apart) - 1} more" if len(apart) > 1 else ""
            raise GeomoeError(
                f"not the samples of the report: {apart[0]} {what}{more}, of "
                f"{counted(len(known), 'sample')}; give the right folder by --data"
            )


def read_record(path: Path) -> Record:
    """A report, by its manifest or its folder.

    Raises:
        GeomoeError: no manifest, or no ``audit.json`` beside it that is the one it was written with.
    """
    path = path / "manifest.json" if path.is_dir() else path
    manifest = _read(path, read_small(path, LARGEST))
    results = manifest.get("results")
    if not isinstance(results, dict) or not {"file", "sha256"} <= results.keys():
        raise GeomoeError(f"{path} is no manifest of an audit; give the manifest.json of a report")
    beside = path.parent / Path(results["file"]).name
    content = read_small(beside, LARGEST)
    if hashlib.sha256(content).hexdigest() != results["sha256"]:
        raise GeomoeError(
            f"{beside} is not as it was when {path.name} was written; get the whole report again"
        )
    found = _read(beside, content)
    return Record(manifest, {section["name"]: section for section in found["sections"]})


def _read(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GeomoeError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise GeomoeError(f"{path} is no manifest of an audit; give the manifest.json of a report")
    return found


def differences(record: Record, audit: Audit, tolerance: float) -> tuple[list[Difference], int]:
    """What is found now and was found otherwise; and how many values were compared.

    All of the sections' data but what was timed, and which findings there are.

    Args:
        record: what was found.
        audit: what is.
        tolerance: by which numbers may differ, over the larger of the two; 0 for not at all.
    """
    now = json.loads(json_text(audit.as_dict()["sections"]))
    pairs = []
    for section in now:
        was = record.sections.get(section["name"], {"data": None, "findings": []})
        pairs += list(_pairs(section["name"], was["data"], section["data"]))
        if TIMINGS not in section["data"]:
            codes = [[f"{f['level']} {f['code']}" for f in of["findings"]] for of in (was, section)]
            pairs += list(_pairs(f"{section['name']} / findings", *codes))
    return [Difference(*pair) for pair in pairs if not _same(*pair[1:], tolerance)], len(pairs)


def _pairs(place: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            if key != TIMINGS:
                yield from _pairs(f"{place} / {key}", was.get(key), now.get(key))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (before, after) in enumerate(zip(was, now, strict=True)):
            yield from _pairs(f"{place} / {number}", before, after)
    else:
        yield place, was, now


def _same(was: Any, now: Any, tolerance: float) -> bool:
    if _number(was) and _number(now):
        return bool(abs(was - now) <= tolerance * max(abs(was), abs(now), _SMALL))
    return bool(was == now)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
