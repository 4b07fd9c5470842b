"""The sources of a training set, read for other commands than the one that trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from geomoe.configs import find_config
from geomoe.data.super_resolution.sources import Source
from geomoe.errors import GeomoeError, expect
from geomoe.files import read_small
from geomoe.tasks.bounded_yaml import load_yaml

__all__ = ["SourceList", "parse_sources", "read_sources"]

_VALIDATION = 0.05


@dataclass(frozen=True)
class SourceList:
    """Sources, with what decides how they are parted.

    Attributes:
        name: of the configuration.
        sources: at least one, of different names.
        validation: share of what is not held out that is kept to validate on.
    """

    name: str
    sources: tuple[Source, ...]
    validation: float = _VALIDATION


def read_sources(given: str) -> SourceList:
    """The sources of a training configuration, by name or path, or of a YAML file with a list ``sources``.

    Raises:
        GeomoeError: no such file, no sources in it, or such that cannot be.
    """
    path = Path(find_config(given))
    try:
        found = load_yaml(read_small(path).decode())
    except (yaml.YAMLError, ValueError) as error:
        raise GeomoeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    top: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    data = top.get("data") if "sources" not in top else top
    if not isinstance(data, Mapping) or "sources" not in data:
        raise GeomoeError(
            f"{path} lists no sources; expected data.sources as 'geomoe fit' takes it, or sources"
        )
    validation = data.get("validation", _VALIDATION)
    good = isinstance(validation, int | float) and 0 <= validation < 1
    try:
        expect(good, "validation", validation, "a share, 0 to below 1")
        sources = parse_sources(data["sources"])
    except GeomoeError as error:
        raise GeomoeError(f"{path.name}: {error}") from error
    return SourceList(path.stem, sources, validation)


def parse_sources(listed: object) -> tuple[Source, ...]:
    """Sources from what YAML makes of a list of them, by the rules that ``geomoe fit`` reads them by.

    Raises:
        GeomoeError: no list, an empty one, or such that cannot be.
    """
    if not isinstance(listed, list) or not listed or not all(isinstance(one, Mapping) for one in listed):
        raise GeomoeError("sources: expected a list of sources, each of names with values")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--source", type=Source)
    sources: list[Source] = []
    for number, one in enumerate(listed, 1):
        try:
            sources.append(parser.instantiate(parser.parse_object({"source": one})).source)
        except ArgumentError as error:
            name = one.get("name", f"number {number}")
            raise GeomoeError(f"source {name}: {' '.join(str(error).split())}") from error
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise GeomoeError(
            f"two sources are called {max(names, key=names.count)!r}; give each a name of its own"
        )
    return tuple(sources)
