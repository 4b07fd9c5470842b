"""Configurations that ship with the package: whole recipes of training, and benchmarks, by name."""

from __future__ import annotations

import re
from pathlib import Path

from geomoe.errors import GeomoeError

__all__ = ["find_config", "shipped"]

_HOME = Path(__file__).parent
_NAMED = re.compile(r"(configs/)?([a-z]\w*/){0,2}[\w-]+(\.yaml)?")


def shipped(kind: str = "") -> dict[str, Path]:
    """Configurations of ``geomoe fit`` by name, or those of a folder, such as ``benchmarks``."""
    found = sorted((_HOME / kind).rglob("*.yaml"))
    return {path.stem: path for path in found if kind or path.relative_to(_HOME).parts[0] != "benchmarks"}


def find_config(given: str, kind: str = "") -> str:
    """The file that is meant by a path, or by the name of one that ships.

    A file that is there comes first. The path that one that ships has in the repository does for its name.

    Args:
        given: as the user wrote it.
        kind: as of :func:`shipped`.

    Raises:
        GeomoeError: a name, and none that ships is called so.
    """
    if Path(given).is_file() or not _NAMED.fullmatch(given):
        return given
    named = shipped(kind)
    if (name := Path(given).stem) in named:
        return str(named[name])
    raise GeomoeError(
        f"there is no file {given}, and no configuration of that name ships with geomoe; there are: "
        f"{', '.join(named)}"
    )
