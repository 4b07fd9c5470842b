"""The folder of a report, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geomoe.audit.plain import json_text
from geomoe.audit.report.figures import draw  # a library that is missing is told of before the work
from geomoe.audit.report.latex import latex
from geomoe.audit.report.page import page
from geomoe.audit.run import Audit
from geomoe.errors import GeomoeError
from geomoe.files import sync_folder

__all__ = ["check_folder", "write_report"]

_HOLDS = {"report.html", "audit.json", "manifest.json", "figures", "tables"}


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that no report can be written to, before the work starts.

    Args:
        folder: of the report; made where there is none.
        overwrite: whether an earlier report is replaced.

    Raises:
        GeomoeError: a folder of other things, a report that stands there, or a place that cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise GeomoeError(f"{folder} is no folder; give --out a folder for the report")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found - _HOLDS:
        other = min(found - _HOLDS)
        raise GeomoeError(f"{folder} holds {other}, which is no report's; give --out a folder of its own")
    if found and not overwrite:
        raise GeomoeError(f"{folder} holds a report; use --overwrite to replace it")
    around = next(place for place in Path(os.path.realpath(folder)).parents if place.exists())
    if not os.access(around, os.W_OK | os.X_OK):
        raise GeomoeError(f"folder {around} is not writable; choose another --out or change its permissions")


def write_report(audit: Audit, folder: str | Path) -> Path:
    """Write a report: ``report.html``, ``audit.json``, ``manifest.json``, ``figures/`` and ``tables/``.

    All of it is made beside the folder, and takes its place when it is whole: after an error an earlier
    report stands there as it was. The same audit gives the same bytes.

    Args:
        audit: that is reported.
        folder: of the report; an earlier report there is replaced.

    Returns:
        The page.

    Raises:
        GeomoeError: as :func:`check_folder`, and where the disk does not take it.
    """
    place = Path(os.path.realpath(folder))
    check_folder(place, overwrite=True)
    with _replaced(place) as part:
        drawn = {figure.name: draw(figure) for section in audit.sections for figure in section.figures}
        for name in ("figures", "tables"):
            (part / name).mkdir()
        for name, figure in drawn.items():
            (part / "figures" / f"{name}.svg").write_bytes(figure.svg)
            (part / "figures" / f"{name}.png").write_bytes(figure.png)
        for section in audit.sections:
            for table in section.tables:
                _write(part / "tables" / f"{table.name}.tex", latex(table))
        found = json_text(audit.as_dict()).encode("utf-8", "backslashreplace")
        (part / "audit.json").write_bytes(found)
        results = {"file": "audit.json", "sha256": hashlib.sha256(found).hexdigest()}
        _write(part / "manifest.json", json_text({**audit.manifest, "results": results}))
        _write(part / "report.html", page(audit, drawn))
    return Path(folder) / "report.html"


@contextmanager
def _replaced(place: Path) -> Iterator[Path]:
    """An empty folder, which takes the place of another when the block ends."""
    mark = secrets.token_hex(4)
    part, earlier = (place.parent / f".{place.name[:40]}.{mark}.{end}" for end in ("part", "earlier"))
    try:
        part.mkdir(parents=True)
        yield part
        if place.exists():
            os.replace(place, earlier)
        try:
            os.replace(part, place)
        except OSError:
            if earlier.exists():
                os.replace(earlier, place)
            raise
        sync_folder(place.parent)
    except OSError as error:
        what = f"{place} cannot be written: {error.strerror or error}"
        raise GeomoeError(f"{what}; it is as it was, free some space or choose another place") from error
    finally:
        for folder in (part, earlier):
            with suppress(OSError):
                shutil.rmtree(folder)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "backslashreplace"))
