"""What the configurations of all super-resolution models share."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["SCALES", "SuperResolutionConfig", "check_divides"]

SCALES = (2, 3, 4, 8)


@dataclass(frozen=True)
class SuperResolutionConfig:
    """Options of a super-resolution model. Whole numbers, alone and in tuples, are 1 or more.

    Attributes:
        scale: 2, 3, 4 or 8.
        bands: channels in and out.
    """

    scale: int = 4
    bands: int = 3

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale={self.scale}: expected one of {', '.join(map(str, SCALES))}")
        for option in fields(self):
            value = getattr(self, option.name)
            if option.type == "int" and not _counts(value):
                raise ValueError(f"{option.name}={value!r}: expected a whole number from 1")
            if option.type == "tuple[int, ...]" and not (value and all(_counts(v) for v in value)):
                raise ValueError(
                    f"{option.name}={value!r}: expected whole numbers from 1, at least one of them"
                )


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_divides(name: str, part: int, whole_name: str, whole: int) -> None:
    """Refuse a ``part`` that does not divide ``whole``, with a ValueError that names both options."""
    if whole % part:
        raise ValueError(f"{name}={part}: expected a divisor of {whole_name}={whole}")
