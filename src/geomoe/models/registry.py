"""The registry: models by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from geomoe.errors import GeomoeError

__all__ = ["build", "config_of", "describe", "list_models", "register", "takes"]


@dataclass(frozen=True)
class _Entry:
    build: Callable[[Any], nn.Module]
    config: type
    defaults: Mapping[str, Any]
    gives: str
    what: str


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str,
    build: Callable[[Any], nn.Module],
    config: type,
    defaults: Mapping[str, Any] | None = None,
    gives: str = "image",
    what: str = "",
) -> None:
    """Add a model under ``name``.

    Args:
        name: as given to :func:`geomoe.create_model`.
        build: makes the module from its configuration; the class itself as a rule.
        config: frozen dataclass of its configuration.
        defaults: where this size differs from the defaults of ``config``.
        gives: kind of its output, as of :class:`geomoe.models.contract.Output`.
        what: it is, in a line, where that is not the first line of its module's docstring.
    """
    _ENTRIES[name] = _Entry(build, config, dict(defaults or {}), gives, what)


def list_models(gives: str | None = None) -> list[str]:
    """Names that :func:`geomoe.create_model` knows, sorted; those alone that give an image, or a label."""
    return sorted(name for name, entry in _ENTRIES.items() if gives in (None, entry.gives))


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise GeomoeError(f"no model is called {name!r}; there are: {', '.join(list_models())}")
    return _ENTRIES[name]


def describe(name: str) -> str:
    """What model ``name`` is, in a line: as registered, or the first of its module's docstring."""
    entry = _entry(name)
    text = entry.what or sys.modules[entry.build.__module__].__doc__ or ""
    return text.partition("\n")[0].rstrip(".")


def config_of(name: str, options: Mapping[str, Any]) -> Any:
    """The configuration of model ``name`` with ``options`` set; an unknown option is an error."""
    entry = _entry(name)
    known = [field.name for field in fields(entry.config)]
    for key in options:
        if key not in known:
            raise GeomoeError(f"{name} has no option {key!r}; it has: {', '.join(known)}")
    merged = {**entry.defaults, **options}
    # JSON and YAML know lists alone.
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in merged.items()}
    try:
        return entry.config(**values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise GeomoeError(f"{name}: {error}") from error


def takes(name: str, option: str) -> bool:
    """Whether model ``name`` has an option of that name."""
    return option in [field.name for field in fields(_entry(name).config)]


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Model ``name`` with ``options`` set, with random weights."""
    config = config_of(name, options)
    try:
        return _entry(name).build(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise GeomoeError(f"{name}: {error}") from error
