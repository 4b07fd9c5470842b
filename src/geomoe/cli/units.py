"""Sizes and times as people write them."""

from __future__ import annotations

import re
from typing import Literal

import click

__all__ = ["Bytes", "Nodata", "Seconds", "in_time"]

_UNITS = {
    prefix + binary: (1024 if binary else 1000) ** power
    for power, prefix in enumerate(("", "K", "M", "G", "T"))
    for binary in ("", "I")
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", re.IGNORECASE)


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, such as 4GB or 512MiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; fails as click does."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value))
        if found is None or found[2].upper() not in _UNITS or float(found[1]) == 0:
            self.fail(f"{value!r} is no size; expected one such as 4GB or 512MB", param, ctx)
        if not found[2] and "b" not in str(value).lower():
            self.fail(f"{value!r} has no unit, and would be bytes; say {found[1]}G for gigabytes", param, ctx)
        return int(float(found[1]) * _UNITS[found[2].upper()])


_TIMES = {"s": 1, "min": 60, "h": 3600}
_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h)?\s*")


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A duration, such as 90s, 30min or 2h."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; fails as click does."""
        if isinstance(value, float):
            return value
        found = _TIME.fullmatch(str(value))
        if found is None or found[2] is None or float(found[1]) == 0:
            self.fail(f"{value!r} is no time; expected one such as 90s, 30min or 2h", param, ctx)
        return float(found[1]) * _TIMES[found[2]]


class Nodata(click.ParamType):  # type: ignore[type-arg]
    """A nodata value, or ``none``."""

    name = "value"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Literal["none"]:
        """The value; fails as click does."""
        text = str(value).strip().lower()
        if text == "none":
            return "none"
        try:
            return float(text)
        except ValueError:
            self.fail(f"{value!r} is no value of a pixel; expected a number, nan or none", param, ctx)


def in_time(seconds: float) -> str:
    """A duration in words, as 40 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
