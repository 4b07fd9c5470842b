"""Which bands of a scene are meant."""

from __future__ import annotations

from collections.abc import Sequence

from geomoe.errors import GeomoeError
from geomoe.raster.product import matching
from geomoe.raster.scene import Scene

__all__ = ["band_names", "band_order", "first_bands", "select_bands"]

_USUAL_ORDER = ("red", "green", "blue", "nir")


def band_names(scene: Scene, bands: Sequence[int]) -> tuple[str, ...]:
    """The description of each band (1-based), or ``band N`` where it has none."""
    return tuple(scene.descriptions[b - 1] or f"band {b}" for b in bands)


def band_order(scene: Scene, bands: Sequence[int]) -> str | None:
    """What is taken for granted about the order of bands, or amiss with it, in words; ``None`` if nothing is.

    Models begin with red, green, blue, as the images did that they learned from.
    """
    called = [_called(scene, band) for band in bands]
    if not any(called):
        if len(scene.data_bands) < 3:
            return None
        usual = ", ".join(_USUAL_ORDER[: len(scene.data_bands)])
        return f"bands have no names; taken to be {usual} in this order"
    rgb = _USUAL_ORDER[:3]
    colours = [next((c for c in rgb if c in map(str.casefold, names)), "") for names in called]
    if sorted(filter(None, colours)) != sorted(rgb) or tuple(colours[:3]) == rgb:
        return None
    first = [colours.index(colour) for colour in rgb]
    better = [*first, *(i for i in range(len(bands)) if i not in first)]
    # By names: the numbers of a product opened by names are others than those of the whole.
    advice = ",".join(called[i][0] if called[i] else str(bands[i]) for i in better)
    return f"red, green and blue come in another order than models learn from; --bands {advice} may do better"


def _called(scene: Scene, band: int) -> list[str]:
    """Names of a band, its description first; empty if it has none."""
    return [name for name in ((scene.descriptions[band - 1] or "").strip(), *scene.aliases[band - 1]) if name]


def select_bands(scene: Scene, spec: str | Sequence[str | int] | None, model_bands: int) -> tuple[int, ...]:
    """The bands to work on, 1-based, in the order given.

    Args:
        scene: an open scene.
        spec: names (any case; of a band without one, the colour that the file says it is) or 1-based numbers,
            as a list or as text with commas; ``None`` takes every band that holds data. Where a band is
            named ``"8"``, the text ``"8"`` means that one.
        model_bands: bands that the model takes at once, for the message when there are none.

    Raises:
        GeomoeError: for a band that does not exist, stands twice or is a mask, or if none is left.
    """
    if spec is None:
        if not scene.data_bands:
            raise GeomoeError(
                f"{scene.path.name} has no band with data, only a mask; the model takes {model_bands} at once"
            )
        return scene.data_bands
    wanted: list[str | int] = [*spec.split(",")] if isinstance(spec, str) else [*spec]
    chosen = tuple(_find(scene, item) for item in wanted)
    if not chosen:
        raise GeomoeError(f"no band was named; {_available(scene)}")
    twice = sorted({b for b in chosen if chosen.count(b) > 1})
    if twice:
        raise GeomoeError(f"band {twice[0]} stands twice in the selection; name each band once")
    return chosen


def first_bands(scene: Scene, count: int) -> tuple[int, ...]:
    """The first ``count`` bands that hold data, 1-based; raises GeomoeError where there are fewer."""
    bands = scene.data_bands
    if len(bands) < count:
        raise GeomoeError(f"{scene.path} has {len(bands)} bands of data, {count} are wanted")
    return bands[:count]


def _find(scene: Scene, item: str | int) -> int:
    text = str(item).strip()
    number = text.casefold().removeprefix("band ")  # as band_names() calls those without a name
    names = [((d or "").strip(), *a) for d, a in zip(scene.descriptions, scene.aliases, strict=True)]
    matches = [i + 1 for i in matching(text, names)] if text else []
    if isinstance(item, str) and len(matches) > 1:
        raise GeomoeError(f"{len(matches)} bands are named {text!r}; name one by its number, {matches}")
    if isinstance(item, str) and matches:
        band = matches[0]
    elif number.isascii() and number.isdigit() and 1 <= int(number) <= scene.count:
        band = int(number)
    else:
        raise GeomoeError(f"{scene.path.name} has no band {text!r}; {_available(scene)}")
    if band not in scene.data_bands:
        raise GeomoeError(f"band {band} is alpha, a mask and not data; {_available(scene)}")
    return band


def _available(scene: Scene) -> str:
    bands = scene.data_bands
    names = [(b, scene.descriptions[b - 1] or next(iter(scene.aliases[b - 1]), "")) for b in bands[:24]]
    listed = ", ".join(f"{band} ({name})" if name else str(band) for band, name in names)
    return f"it has {listed}{', ...' if len(bands) > 24 else ''}"
