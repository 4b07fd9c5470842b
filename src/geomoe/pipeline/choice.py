"""Which of the weights that ship fit a scene, and whether weights were ever measured on its like."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from geomoe.layers.super_resolution.known import Known
from geomoe.models import Card, LoadedModel, available_weights, load, read_card
from geomoe.models.measured import Measured
from geomoe.raster.read.known import KnownScene
from geomoe.raster.read.sensor import family

__all__ = [
    "DEFAULT",
    "Choice",
    "brought_otherwise",
    "choose",
    "digest",
    "fitting",
    "for_model",
    "offered",
    "outside",
    "remarks",
]

DEFAULT = "mfg_hmoe_light"
"""The model whose weights are taken where nothing speaks for others."""
_NEAR = 1.5
"""Pixels so many times as long, or as short, as those that were measured count as measured; and so much noise
as three of four inputs had at most."""
_FAINT = 0.01
"""Noise that is none, as a share of the range: inputs that are downsampled have less than the scene has."""


@dataclass(frozen=True)
class Choice:
    """Weights, and what speaks for them.

    Attributes:
        weights: their name.
        why: in words, to follow on the name.
    """

    weights: str
    why: str


def choose(known: KnownScene, cards: Mapping[str, Card], default: str) -> Choice:
    """The weights that fit a scene.

    Those that were measured on its sensor; where none were, those whose images have the nearest ground
    sampling distance; where that tells nothing either, the default. Of several the nearest ground sampling
    distance decides, then the larger gain, by evaluations that all of them have where there are some; then
    the default is first.

    Args:
        known: of the scene.
        cards: of weights by their names, all for one scale; at least one.
        default: one of them, or a name to be taken for the first.
    """
    names = sorted(cards, key=lambda name: (name != default, name))
    measured = {name: cards[name].evaluations for name in names}
    of_sensor = {
        name: own
        for name, each in measured.items()
        if (own := [one for one in each if known.sensor and family(one.sensor) == family(known.sensor)])
    }
    if of_sensor:
        return Choice(_best(known, cards, of_sensor), f"measured on {known.sensor}")
    of_gsd = {
        name: own for name, each in measured.items() if (own := [one for one in each if one.gsd is not None])
    }
    unknown = "no sensor is recognised" if known.sensor is None else f"none were measured on {known.sensor}"
    if known.gsd is None or not of_gsd:
        return Choice(names[0], f"the default, as {unknown}")
    best = _best(known, cards, of_gsd)
    nearest = min(of_gsd[best], key=lambda one: _distance(known, one, _scale(cards[best])))
    return Choice(best, f"{unknown}, and of {known.gsd:.4g} m theirs are nearest ({nearest.gsd:g} m)")


def _best(known: KnownScene, cards: Mapping[str, Card], measured: Mapping[str, Sequence[Measured]]) -> str:
    """Of weights, the first one in order of distance and gain; see `choose`."""
    far = {
        name: [_distance(known, one, _scale(cards[name])) for one in each] for name, each in measured.items()
    }
    least = min(min(each) for each in far.values())
    near = {
        name: own
        for name, each in measured.items()
        if (own := [one for one, distance in zip(each, far[name], strict=True) if distance == least])
    }

    def gain(name: str) -> float:
        shared = [
            one for one in near[name] if all(any(map(one.same_case, others)) for others in near.values())
        ]
        return fmean(one.gain for one in shared or near[name])

    return max(near, key=gain)  # of equal ones the first


def _distance(known: KnownScene, one: Measured, scale: int) -> float:
    """How many times longer or shorter pixels are than those that were measured, as a logarithm.

    Those are the images', and those of the inputs that were made of them. Where nothing tells, 0.
    """
    if known.gsd is None or one.gsd is None:
        return 0.0
    return max(0.0, math.log(one.gsd / known.gsd), math.log(known.gsd / (one.gsd * scale)))


def _scale(card: Card) -> int:
    return int(card.config["scale"])


def outside(known: KnownScene, card: Card, name: str) -> str | None:
    """A sentence where a scene is unlike all that the card of weights says they were measured on.

    By sensor, ground sampling distance and noise, as far as scene and card tell; of a card that says nothing
    nothing is said.
    """
    everything = card.evaluations
    alike = [one for one in everything if one.sensor and family(one.sensor) == family(known.sensor)]
    odd = []
    sensors = sorted({one.sensor for one in everything if one.sensor})
    if known.sensor and sensors and not alike:
        odd.append(f"sensor {known.sensor} (measured: {', '.join(sensors)})")
    among = alike or everything
    sizes = [one for one in among if one.gsd is not None]
    near = [one for one in sizes if _distance(known, one, _scale(card)) <= math.log(_NEAR)]
    if sizes and not near:
        spans = sorted({(one.gsd or 0.0, (one.gsd or 0.0) * _scale(card)) for one in sizes})
        measured = ", ".join(f"{low:g} to {high:g} m" for low, high in spans)
        odd.append(f"pixels of {known.gsd:.4g} m (measured: {measured})")
    levels = [one.noise[1] for one in near or among if one.noise is not None]
    if known.noise is not None and levels and known.noise > max(_FAINT, _NEAR * max(levels)):
        odd.append(f"noise of about {known.noise:.2g} of the range (measured: about {max(levels):.2g})")
    if not odd:
        return None
    return f"unlike what {name} was measured on: {', '.join(odd)}; look at the result before you rely on it"


@lru_cache(maxsize=1)
def _loaded(path: Path) -> LoadedModel:
    return load(str(path))


def offered(scale: int) -> dict[str, tuple[Path, Card]]:
    """Weights that ship for a scale: files and cards by name.

    Raises:
        GeomoeError: if there are none.
    """
    found = {name: (path, read_card(path)) for name, path in available_weights().items()}
    fit = {name: pair for name, pair in found.items() if pair[1].config.get("scale") == scale}
    if not fit:
        load(DEFAULT, scale)  # says for which scales there are some
    return fit


def brought_otherwise(dtype: str, card: Card, name: str) -> str | None:
    """A sentence where values reach a model in another way than those that it learned from.

    Bytes are divided by 255, other types stretched by the percentiles of each scene: the same ground may look
    other. Nothing is said of a card that says nothing, nor of values that are taken as they are.

    Args:
        dtype: of a scene.
        card: of the weights.
        name: of them.
    """
    learned = card.data.get("dtypes")
    if card.radiometry != "unit" or not isinstance(learned, list) or not learned:
        return None
    if any((dtype == "uint8") == (one == "uint8") for one in learned):
        return None
    ways = {True: "divided by 255", False: "stretched by the percentiles of each image"}
    return (
        f"{dtype} is {ways[dtype == 'uint8']}, and the weights {name} learned from "
        f"{' and '.join(map(str, learned))}, {ways[dtype != 'uint8']}: the same ground may look other to "
        "them; look at the result before you rely on it"
    )


def remarks(dtype: str, known: KnownScene, model: object, why: str) -> tuple[str, ...]:
    """What the user should know of the weights: why these, and where they were not measured; sentences.

    Args:
        dtype: of the scene.
        known: of the scene.
        model: an `Predictor`, with a card or without.
        why: these weights; empty where the user chose them.
    """
    card = getattr(model, "card", None)
    if card is None:
        return (why,) if why else ()
    name = getattr(model, "name", "the model")
    return tuple(filter(None, (why, outside(known, card, name), brought_otherwise(dtype, card, name))))


def digest(scale: int) -> str:
    """SHA-256 of all that decides which weights a scene gets, and of the weights: of names and cards."""
    cards = {name: asdict(card) for name, (_, card) in offered(scale).items()}
    return hashlib.sha256(json.dumps(cards, sort_keys=True).encode()).hexdigest()


def for_model(known: KnownScene) -> Known:
    """What a model is told of a scene, in the terms of its training.

    How the pixels came about is known where they are the sensor's own, of which the MTF is known.
    """
    return Known(
        sensor=family(known.sensor),
        gsd=known.gsd,
        kernel=None if known.mtf is None else "sensor",
        mtf=known.mtf,
        noise=known.noise,
    )


def fitting(known: KnownScene, scale: int) -> tuple[LoadedModel, str]:
    """The weights that ship and fit a scene, loaded, and a sentence that says which and why."""
    there = offered(scale)
    choice = choose(known, {name: card for name, (_, card) in there.items()}, f"{DEFAULT}_x{scale}")
    return _loaded(there[choice.weights][0]), f"weights {choice.weights}: {choice.why}"
