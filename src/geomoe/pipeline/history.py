"""What is said of how an output came to be, and by what names; without torch, as it is checked so."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.raster.stac.item import ITEM, read_item
from geomoe.raster.stac.links import href

__all__ = [
    "IMAGE",
    "geomoe_version",
    "is_model_item",
    "lineage",
    "model_id",
    "model_item_name",
    "model_link",
    "output_link",
    "scene_link",
    "seal",
    "title",
]

IMAGE = "image"
"""What the first output of a model that gives an image is called, where maps have their names."""
_MAX_NAME = 200  # bytes; common file systems take 255


def geomoe_version() -> str:
    """Of the package that is installed."""
    try:
        return metadata.version("geomoe")
    except metadata.PackageNotFoundError:
        return "unknown"


def title(scene: str, configuration: Mapping[str, Any], layer: Sequence[str | None], first: str) -> str:
    """What an output is.

    Args:
        scene: its name.
        configuration: of the job.
        layer: names of the bands of a layer; empty of the first output.
        first: title of that.
    """
    model = configuration["model"]
    if layer:
        return f"{scene}, {', '.join(name or 'a layer' for name in layer)} of {model}"
    return f"{scene}, {first} by {model}"


def lineage(
    scene: str, configuration: Mapping[str, Any], layer: Sequence[str | None], noun: str, caveat: str
) -> str:
    """How an output came to be, in words.

    Args:
        scene: its name.
        configuration: of the job.
        layer: names of the bands of a layer; empty of the first output.
        noun: what that is.
        caveat: a sentence on what may be believed of it.
    """
    contract = configuration["contract"]
    margin = configuration.get("margin", contract["margin"])  # of its own since it may be wider
    how = (
        f"geomoe ran {configuration['model']} (weights {configuration['weights'][:12]}) on bands "
        f"{', '.join(names[0] for names in configuration['names'])} of {scene}, in tiles of "
        f"{configuration['tile']} input pixels with a margin of {margin} and in groups of "
        f"{contract['bands']} bands. Values were brought to the model's range, "
        f"{configuration['radiometry']['rule']}{', and back' if configuration['kind'] == IMAGE else ''}."
    )
    if overlap := configuration.get("blend"):
        how += f" Class probabilities of neighbouring tiles are blended over {2 * overlap} pixels."
    nodata = configuration["nodata"]
    if nodata["by"] == "area":
        how += f" Pixels that are {nodata['value']} in all of them were taken to hold no data."
    elif nodata["by"] == "user":
        how += f" Its user said that {nodata['said']} stands for no data."
    if configuration.get("precision", "float32") != "float32":
        how += f" Convolutions and products were computed in {configuration['precision']}."
    if configuration["fallback"]:
        how += " Where its routing was unlike that of training, plain interpolation is used instead."
    if configuration.get("conserve"):
        how += " The mean of the image over each pixel of the source is that pixel."
    if layer:
        return f"{how} This is a layer beside the {noun}."
    return f"{how} {caveat}"


def model_id(name: str, weights: str, options: Mapping[str, Any] | None) -> str:
    """The id of a model's item, by the hash of its weights and its options: one for each of both."""
    return f"{name}.{_digest(weights, options)}"


def model_item_name(name: str, weights: str, options: Mapping[str, Any] | None) -> str:
    """The file of a model's item, as its `model_id`, with a name that a file can have."""
    short = os.fsdecode(os.fsencode(re.sub(r"[/\\\0]", "-", name))[:_MAX_NAME])
    return f"{short}.{re.sub('[^0-9a-zA-Z]', '-', _digest(weights, options))}.stac.json"


def _digest(weights: str, options: Mapping[str, Any] | None) -> str:
    # No tensor tells the classes, nor mean and deviation that come with them.
    if options and options.get("classes"):
        told = json.dumps([weights, options], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:12]
    return weights[:12]


def is_model_item(path: Path) -> bool:
    """Whether a file is the item of some model, and may be written anew."""
    try:
        return "mlm:name" in read_item(path)["properties"]
    except GeomoeError:
        return False


def scene_link(name: str) -> dict[str, str]:
    """From an output to its scene."""
    kinds = {
        ".jp2": "image/jp2",
        ".zip": "application/zip",
        ".npz": "application/zip",
    }  # .npz is one of arrays
    media = kinds.get(Path(name).suffix.lower(), "image/tiff; application=geotiff")
    return _link("derived_from", name, media, "the scene")


def output_link(item: str) -> dict[str, str]:
    """From an output to the item of another one of its job."""
    return _link("related", item, ITEM, "of the same job")


def model_link(item: str) -> dict[str, str]:
    """From an output to the item of its model."""
    return _link("related", item, ITEM, "the model")


def _link(rel: str, name: str, media: str, title: str) -> dict[str, str]:
    return {"rel": rel, "href": href(name), "type": media, "title": title}


def seal(item: Mapping[str, Any], *unsealed: str) -> str:
    """SHA-256 over what an item says, for a tag of its file: by this a change of the item is found out.

    But for what would make the file's bytes depend on themselves, its size and checksum, or on its name and
    its neighbours: names of outputs, and links.

    Args:
        item: of an output, with its configuration.
        unsealed: further properties to leave out.
    """
    said, data = item["properties"], item["assets"].get("data")
    record = _without(said.get("geomoe:configuration"), "outputs")
    sealed = {
        **_without(item, "id", "links"),
        "properties": {**_without(said, *unsealed), "geomoe:configuration": record},
        "assets": {**item["assets"], "data": _without(data, "href", "file:size", "file:checksum")},
    }
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def _without(value: object, *names: str) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, dict) else {}
