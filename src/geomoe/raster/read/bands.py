"""Which bands of a scene are meant."""

from __future__ import annotations

from collections.abc import Sequence

from rasterio.enums import ColorInterp

from geomoe.errors import GeomoeError
from geomoe.raster.read.names import RGB, WAVELENGTHS, listed, matching
from geomoe.raster.read.scene import Scene

__all__ = [
    "band_names",
    "band_order",
    "exact_bands",
    "exact_order",
    "learned_names",
    "learning_bands",
    "left_out",
    "select_bands",
]

_USUAL_ORDER = (*RGB, "nir")
_REPEAT = "classes are made finer by gdal_translate -r nearest -outsize 400% 400%"


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
        if len(scene.data_bands) > len(_USUAL_ORDER):
            return "bands have no names; models take them in the order in which they come"
        usual = ", ".join(_USUAL_ORDER[: len(scene.data_bands)])
        return f"bands have no names; taken to be {usual} in this order"
    colours = [_colour(names) for names in called]
    if not any(colours) and len(bands) >= 3:
        return "the names of bands do not say which are red, green and blue, in which order models learned"
    if any(colours.count(colour) != 1 for colour in RGB) or tuple(colours[:3]) == RGB:
        return None
    first = [colours.index(colour) for colour in RGB]
    better = [*first, *(i for i in range(len(bands)) if i not in first)]
    # By names: the numbers of a product opened by names are others than those of the whole.
    advice = ",".join(called[i][0] if called[i] else str(bands[i]) for i in better)
    return f"red, green and blue come in another order than models learn from; --bands {advice} may do better"


def left_out(scene: Scene, bands: Sequence[int]) -> str | None:
    """Which bands but alpha are not among ``bands``, in words; ``None`` if all are."""
    others = [band for band in scene.data_bands if band not in bands]
    said = [_listed(scene, others)] if others else []
    if scene.class_bands:
        said.append(f"{_listed(scene, scene.class_bands)}, which hold classes")
    return f"bands left out: {'; '.join(said)}" if said else None


def _called(scene: Scene, band: int) -> list[str]:
    """Names of a band, its description first; empty if it has none."""
    return [name for name in ((scene.descriptions[band - 1] or "").strip(), *scene.aliases[band - 1]) if name]


def _listed(scene: Scene, bands: Sequence[int]) -> str:
    return listed(
        [f"{band} ({names[0]})" if (names := _called(scene, band)) else str(band) for band in bands]
    )


def _colour(names: Sequence[str]) -> str:
    return next((name for name in map(str.casefold, names) if name in WAVELENGTHS), "")


def select_bands(scene: Scene, spec: str | Sequence[str | int] | None, model_bands: int) -> tuple[int, ...]:
    """The bands to work on, 1-based, in the order given.

    Args:
        scene: an open scene.
        spec: names in any case, as the scene has them or as these are known (`read.names`; of a band
            without one, the colour that the file says it is), or 1-based numbers, as a list or as text with
            commas; ``None`` takes every band that holds data. Where a band is named ``"8"``, the text ``"8"``
            means that one.
        model_bands: bands that the model takes at once, for the message when there are none.

    Raises:
        GeomoeError: for a band that does not exist, is given twice or is a mask, if none is left, and for a
            scene of colours by their numbers.
    """
    if ColorInterp.palette in scene.colorinterp:
        raise GeomoeError(
            f"{scene.path.name} is paletted: its values are numbers of colours or classes, not measurements; "
            "if it is an image, expand it with gdal_translate -expand rgb"
        )
    if spec is None:
        if not scene.data_bands:
            if not scene.class_bands:
                raise GeomoeError(
                    f"{scene.path.name} has no band with data, only a mask; the model takes {model_bands} at "
                    "once"
                )
            raise GeomoeError(
                f"{scene.path.name} has no measurements, only classes, between which there is nothing: "
                f"{_listed(scene, scene.class_bands)}; {_REPEAT}"
            )
        return scene.data_bands
    wanted: list[str | int] = [*spec.split(",")] if isinstance(spec, str) else [*spec]
    chosen = tuple(_find(scene, item) for item in wanted)
    if not chosen:
        raise GeomoeError(f"no band was named; {_available(scene)}")
    twice = sorted({b for b in chosen if chosen.count(b) > 1})
    if twice:
        raise GeomoeError(f"band {twice[0]} is given twice in the selection; name each band once")
    return chosen


def learning_bands(
    scene: Scene, count: int, spec: str | Sequence[str | int] | None = None
) -> tuple[int, ...]:
    """The bands of a scene to learn from, 1-based, in the order in which the model is shown them.

    Args:
        scene: an open scene.
        count: that the model takes.
        spec: as of `select_bands`. Without it, red, green, blue (and nir, of four) where the scene says which
            these are, else the first ones that hold data; see `left_out` for those that are not taken.

    Raises:
        GeomoeError: as `select_bands`, or if there are not ``count`` of them.
    """
    if spec is not None or not scene.data_bands:
        chosen = select_bands(scene, spec, count)
        if len(chosen) != count:
            raise GeomoeError(f"{len(chosen)} bands of {scene.path} were named, the model takes {count}")
        return chosen
    bands = scene.data_bands
    if len(bands) < count:
        raise GeomoeError(f"{scene.path} has {len(bands)} bands of data, {count} are wanted")
    colours = [_colour(_called(scene, band)) for band in bands]
    wanted = _USUAL_ORDER[:count]
    if len(wanted) == count >= 3 and all(colours.count(colour) == 1 for colour in wanted):
        return tuple(bands[colours.index(colour)] for colour in wanted)
    return bands[:count]


def learned_names(scene: Scene, bands: Sequence[int]) -> tuple[str, ...]:
    """By what names a model that learns from these bands may know them; empty where one has none."""
    called = [_called(scene, band) for band in bands]
    names = tuple(_colour(of) or next(iter(of), "") for of in called)
    return names if all(names) and len({name.casefold() for name in names}) == len(names) else ()


def exact_bands(
    scene: Scene,
    count: int,
    spec: str | Sequence[str | int] | None = None,
    names: Sequence[str] = (),
) -> tuple[int, ...]:
    """The bands for a model that takes them all at once, 1-based, in the order in which it learned them.

    Args:
        scene: an open scene.
        count: that the model takes.
        spec: as of `select_bands`; counts before all names.
        names: by which the model knows its bands. A scene whose bands have names must have these, in whatever
            order. Without any: as `learning_bands`, but none is left out unsaid.

    Raises:
        GeomoeError: as `learning_bands`, or where there are more and nothing says which are meant.
    """
    if spec is None and names and any(_called(scene, band) for band in scene.data_bands):
        return _by_names(scene, names)
    chosen = learning_bands(scene, count, spec)
    colours = tuple(_colour(_called(scene, band)) for band in chosen)
    if spec is None and len(scene.data_bands) > count and colours != _USUAL_ORDER[:count]:
        raise GeomoeError(
            f"{scene.path.name} has {len(scene.data_bands)} bands of data, the model takes {count}; say "
            "which by --bands"
        )
    return chosen


def _by_names(scene: Scene, names: Sequence[str]) -> tuple[int, ...]:
    called = [_called(scene, band) for band in scene.data_bands]
    found = [matching(name, called) for name in names]
    lacking = [name for name, places in zip(names, found, strict=True) if len(places) != 1]
    if lacking:
        raise GeomoeError(
            f"{scene.path.name} has no band, or several, that can be {listed(lacking)}; {_available(scene)}; "
            f"say by --bands which are {listed(names)}, in this order"
        )
    return tuple(scene.data_bands[place] for [place] in found)


def exact_order(scene: Scene, bands: Sequence[int], names: Sequence[str] = ()) -> str | None:
    """What is taken for granted about the order of `exact_bands`, in words; ``None`` where names say it."""
    if names:
        called = [_called(scene, band) for band in bands]
        if all(matching(name, [of]) for name, of in zip(names, called, strict=True)):
            return None
        return f"bands {listed(band_names(scene, bands))} are taken to be {listed(names)}, in this order"
    colours = tuple(_colour(_called(scene, band)) for band in bands)
    if len(bands) >= len(RGB) and colours == _USUAL_ORDER[: len(bands)]:
        return None
    names = listed(band_names(scene, bands))
    return f"bands are taken to be those that the model learned from, in this order: {names}"


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
    if band in scene.class_bands:
        raise GeomoeError(
            f"band {_listed(scene, [band])} of {scene.path.name} holds classes, between which there is "
            f"nothing; leave it out; {_REPEAT}"
        )
    if band not in scene.data_bands:
        raise GeomoeError(f"band {band} is alpha, a mask and not data; {_available(scene)}")
    return band


def _available(scene: Scene) -> str:
    return f"it has {_listed(scene, scene.data_bands)}"
