"""What the configurations of models share, and what they check."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from geomoe.layers.windows import Border

__all__ = [
    "SCALES",
    "AttentionConfig",
    "CentredConfig",
    "ClassConfig",
    "LabelConfig",
    "MapConfig",
    "ModelConfig",
    "ScaleConfig",
    "SensorConfig",
    "check_divides",
]

SCALES = (2, 3, 4, 8)


@dataclass(frozen=True)
class ModelConfig:
    """Options of a model. Whole numbers, alone and in tuples, are 1 or more."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for option in fields(self):
            _check(option.name, getattr(self, option.name), kinds[option.name])


@dataclass(frozen=True)
class ScaleConfig(ModelConfig):
    """Options of a super-resolution model.

    Attributes:
        scale: 2, 3, 4 or 8.
        bands: channels in and out.
    """

    scale: int = 4
    bands: int = 3

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale={self.scale}: expected one of {', '.join(map(str, SCALES))}")
        super().__post_init__()


@dataclass(frozen=True)
class ClassConfig(ModelConfig):
    """Options of a model that knows classes.

    Attributes:
        bands: channels in.
        classes: names of the classes; none for a network without a head.
        mean: what is subtracted from the input, one number or one for each band.
        std: what it is then divided by, likewise.
    """

    bands: int = 3
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes={self.classes!r}: expected names")
        if len(set(self.classes)) < len(self.classes) or len(self.classes) == 1:
            raise ValueError(f"classes={self.classes!r}: expected two names or more, each once")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.bands):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: expected one number, or one for each of "
                    f"bands={self.bands}"
                )
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std!r}: expected more than 0")


@dataclass(frozen=True)
class SensorConfig(ClassConfig):
    """Options of a model that knows several sensors, some of which a sample may lack.

    Attributes:
        sensors: number of bands by name, in the order of the bands; two or more.
    """

    sensors: Mapping[str, int] = field(default_factory=lambda: {"first": 2, "second": 1})

    def __post_init__(self) -> None:
        super().__post_init__()
        sensors = self.sensors
        if not (isinstance(sensors, Mapping) and len(sensors) >= 2 and all(map(_counts, sensors.values()))):
            raise ValueError(
                f"sensors={sensors!r}: expected the number of bands of each of two or more, such as "
                "{hyperspectral: 120, height: 1}"
            )
        if sum(sensors.values()) != self.bands:
            raise ValueError(
                f"sensors={dict(sensors)!r} have {sum(sensors.values())} bands in all, bands={self.bands}"
            )


@dataclass(frozen=True)
class MapConfig(ClassConfig):
    """Options of a model that says what each pixel shows; it has classes.

    Attributes:
        colours: of the classes, as ``#rrggbb``; may be empty.
    """

    classes: tuple[str, ...] = ("0", "1")
    colours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.classes:
            raise ValueError("classes=(): expected two names or more")
        colours = self.colours
        if not isinstance(colours, tuple) or not all(re.fullmatch("#[0-9a-f]{6}", str(c)) for c in colours):
            raise ValueError(f"colours={colours!r}: expected some as #rrggbb")
        if len(colours) not in (0, len(self.classes)):
            raise ValueError(f"colours={colours!r}: expected one for each of {len(self.classes)} classes")


@dataclass(frozen=True)
class LabelConfig(ClassConfig):
    """Options of a model that says what a whole image shows; without classes it gives features.

    Attributes:
        mlp_ratio: hidden width of the feed-forward layers over that of the tokens.
        drop_path: stochastic depth of the last block; rises linearly from 0.
        committee: networks that each decide from the features; 1 for a single layer.
        vote: how their probabilities are mixed; see :class:`geomoe.models.decision_moe.DecisionMoE`.
    """

    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    committee: int = 1
    vote: Literal["even", "confidence", "agreement", "learned"] = "even"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mlp_ratio <= 0:
            raise ValueError(f"mlp_ratio={self.mlp_ratio}: expected more than 0")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path}: expected 0 to 1, below 1")


def _check(name: str, value: object, kind: Any) -> None:
    if kind is int and not _counts(value):
        raise ValueError(f"{name}={value!r}: expected a whole number from 1")
    if kind == tuple[int, ...] and not _all_count(value):
        raise ValueError(f"{name}={value!r}: expected whole numbers from 1, at least one of them")
    if kind == int | tuple[int, ...] and not (_counts(value) or _all_count(value)):
        raise ValueError(f"{name}={value!r}: expected a whole number from 1, or several")
    if kind is float and not _measures(value):
        raise ValueError(f"{name}={value!r}: expected a number")
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: expected true or false")
    if kind == tuple[float, ...] and not (isinstance(value, tuple) and all(map(_measures, value))):
        raise ValueError(f"{name}={value!r}: expected numbers, as [0.5]")
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name}={value!r}: expected {' or '.join(get_args(kind))}")


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _measures(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _all_count(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(_counts(v) for v in value)


@dataclass(frozen=True)
class CentredConfig(ScaleConfig):
    """Options of a network that subtracts a mean from its input and adds it to its result.

    Attributes:
        mean: one number, or one for each band. Empty for what the published networks have: DIV2K's mean for
            three bands, 0 for any other number of them.
    """

    mean: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean) not in (0, 1, self.bands):
            raise ValueError(
                f"mean={self.mean!r}: expected one number, or one for each of bands={self.bands}"
            )


@dataclass(frozen=True)
class AttentionConfig(CentredConfig):
    """Options of a network of shifted-window attention.

    Attributes:
        embed_dim: width.
        depths: attention blocks in each group.
        heads: attention heads; divides ``embed_dim``.
        window: side of an attention window, even.
        mlp_ratio: hidden width of the feed-forward layers over ``embed_dim``.
        drop_path: stochastic depth of the last block; rises linearly from 0.
        border: what becomes of the strips that fill an image up to whole windows: ``features`` are cropped
            before the head, or as ``published`` the image is, or ``swinir``; see
            :data:`geomoe.layers.windows.Border`.
    """

    embed_dim: int = 180
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    heads: int = 6
    window: int = 16
    mlp_ratio: float = 2.0
    drop_path: float = 0.1
    border: Border = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "embed_dim", self.embed_dim)
        if self.window % 2:
            raise ValueError(f"window={self.window}: expected an even number")
        if self.mlp_ratio <= 0:
            raise ValueError(f"mlp_ratio={self.mlp_ratio}: expected more than 0")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path}: expected 0 to 1, below 1")

    @property
    def tile(self) -> int:
        """Side of a tile that a CPU's caches and memory handle well: 80 at 180 channels, 256 at 64."""
        return min(max(16384 // self.embed_dim // self.window, 4) * self.window, 256)


def check_divides(name: str, part: int, whole_name: str, whole: int) -> None:
    """Refuse a ``part`` that does not divide ``whole``, with a ValueError that names both options."""
    if whole % part:
        raise ValueError(f"{name}={part}: expected a divisor of {whole_name}={whole}")
