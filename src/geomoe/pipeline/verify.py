"""Whether a file is still what geomoe made, and of what it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.models import load
from geomoe.pipeline.provenance import model_item_name
from geomoe.raster.open import open_scene
from geomoe.raster.scene import Scene
from geomoe.raster.stac import file_fields, file_name, href, item_path, printable, read_item
from geomoe.raster.stack import StackScene

__all__ = ["Verification", "verify"]

# Of each tag, where the item says the same.
_SAME = {
    "GEOMOE_VERSION": ("version",),
    "GEOMOE_MODEL": ("model",),
    "GEOMOE_SOURCE": ("scene",),
    "GEOMOE_WEIGHTS": ("weights",),
    "GEOMOE_SCALE": ("contract", "scale"),
    "GEOMOE_BANDS": ("bands",),
    "GEOMOE_TILE": ("tile",),
    "GEOMOE_FALLBACK": ("fallback",),
    "GEOMOE_RADIOMETRY": ("radiometry",),
}
_JSON = ("GEOMOE_SCALE", "GEOMOE_BANDS", "GEOMOE_TILE", "GEOMOE_FALLBACK", "GEOMOE_RADIOMETRY")


@dataclass(frozen=True)
class Verification:
    """What was found of one output.

    Attributes:
        path: of the GeoTIFF.
        facts: what made it, by its own tags and its item, in the order in which they are to be read.
        faults: what is not as it was made, a sentence each; none if all is.
    """

    path: Path
    facts: Mapping[str, str]
    faults: tuple[str, ...]


def verify(
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    weights: str | None = None,
) -> Verification:
    """Check an output of geomoe against its STAC item and its model's, and both against its tags.

    Nobody signs an item: who changes a file and its item alike is not found out. What is found is every
    change of the file or of its history that was not made to both.

    Args:
        path: of a GeoTIFF that geomoe wrote, or of its item.
        source: if given, the scene that it must have been made of.
        weights: if given, name or file of the weights that it must have been made by.

    Raises:
        GeomoeError: for a file that cannot be read, is none of geomoe's, or has no item that can be read; and
            for a scene or weights that cannot be read.
    """
    image, item_file = _files(Path(os.path.realpath(path)))
    with open_scene(image) as scene:
        missing = [tag for tag in _SAME if tag not in scene.tags]
        if missing:
            raise GeomoeError(f"{image.name} was not made by geomoe: it has no tag {missing[0]}")
        item = read_item(item_file)
        history = _object(item["properties"].get("geomoe:configuration"))
        sources = _list(item["properties"].get("geomoe:sources"))
        faults = [
            *_of_file(scene, item),
            *_of_tags(scene, history, sources),
            *_of_model(scene, item),
            *([] if source is None else _of_source(scene, source, history)),
            *([] if weights is None else _of_weights(scene, weights)),
        ]
        return Verification(image, _facts(scene, item, history, sources), tuple(dict.fromkeys(faults)))


def _files(path: Path) -> tuple[Path, Path]:
    """The GeoTIFF and its item, of which one was named."""
    if not path.name.endswith(".stac.json"):
        return path, item_path(path)
    name = file_name(_object(read_item(path)["assets"].get("data")).get("href"))
    if name is None:
        raise GeomoeError(f"{path.name} is no item of an output of geomoe: it names no file beside it")
    return path.with_name(name), path


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _of_file(scene: Scene, item: Mapping[str, Any]) -> list[str]:
    asset = _object(item["assets"].get("data"))
    if asset.get("href") != href(scene.path.name):
        return [f"its item is of another file, {asset.get('href')!r}"]
    now = file_fields(scene.path)
    if asset.get("file:size") != now["file:size"]:
        return [f"it has {now['file:size']} bytes, its item says {asset.get('file:size')!r}: it was changed"]
    if asset.get("file:checksum") != now["file:checksum"]:
        return ["its SHA-256 is not the one of its item: the file or its item was changed"]
    types = [_object(band).get("data_type") for band in _list(asset.get("bands"))]
    if types != [scene.dtype] * scene.count:
        return [f"it has {scene.count} bands of {scene.dtype}, its item says otherwise"]
    if item["properties"].get("proj:shape") != [scene.height, scene.width]:
        return [f"it has {scene.height} x {scene.width} pixels, its item says otherwise"]
    return []


def _of_tags(scene: Scene, history: Mapping[str, Any], sources: Sequence[object]) -> list[str]:
    wrong = [tag for tag, place in _SAME.items() if _tag(scene, tag) != _at(history, place)]
    # Of a product the tag is over what is read of it, of a plain file it is the file's.
    plain = [_object(s) for s in sources if not str(_object(s).get("name")).lower().endswith(".zip")]
    if len(sources) == len(plain) == 1 and plain[0].get("sha256") != scene.tags["GEOMOE_SOURCE"]:
        wrong.append("GEOMOE_SOURCE")
    return [f"its tag {tag} and its item do not say the same" for tag in wrong]


def _tag(scene: Scene, tag: str) -> object:
    try:
        return json.loads(scene.tags[tag]) if tag in _JSON else scene.tags[tag]
    except (ValueError, RecursionError):
        return None if tag in _JSON else ""


def _at(value: object, place: tuple[str, ...]) -> object:
    for name in place:
        value = _object(value).get(name, _NOWHERE)
    return value


_NOWHERE = object()


def _of_model(scene: Scene, item: Mapping[str, Any]) -> list[str]:
    digest = scene.tags["GEOMOE_WEIGHTS"]
    name = model_item_name(scene.tags["GEOMOE_MODEL"], digest)
    if file_name(href(name)) is None or not any(link["href"] == href(name) for link in item["links"]):
        return [f"its item has no link to the model's, {name}"]
    try:
        model = read_item(scene.path.with_name(name))
    except GeomoeError as error:
        return [f"the model's item: {error}"]
    if model["properties"].get("geomoe:weights") != digest:
        return [f"{name} is of other weights than the file"]
    return []


def _of_source(scene: Scene, source: str | os.PathLike[str], history: Mapping[str, Any]) -> list[str]:
    failed = []
    for bands in _selections(history):
        try:
            with open_scene(source, bands) as other:
                if other.digest() == scene.tags["GEOMOE_SOURCE"]:
                    return []
                fault = f"it was not made of {other.path.name}, or that was changed since"
                if not isinstance(other, StackScene):  # all of a plain file counts, whatever is selected
                    return [fault]
        except GeomoeError as error:
            failed.append(error)
    if len(failed) == len(_selections(history)):
        raise failed[0]
    return [fault]


def _selections(history: Mapping[str, Any]) -> list[list[str] | None]:
    """How a product may have been opened: as it is, or by names of its bands.

    The first name of a band is the usual one; the last is that of an item's asset, which tells grids apart.
    """
    names = [[str(name) for name in _list(row)] for row in _list(history.get("names"))]
    return [None, *([[row[place] for row in names] for place in (0, -1)] if all(names) else [])]


def _of_weights(scene: Scene, weights: str) -> list[str]:
    scale = _tag(scene, "GEOMOE_SCALE")
    model = load(weights, scale if isinstance(scale, int) else None)
    if model.hash == scene.tags["GEOMOE_WEIGHTS"]:
        return []
    return [f"it was made by other weights than {model.name} ({model.hash[:12]})"]


def _facts(
    scene: Scene, item: Mapping[str, Any], history: Mapping[str, Any], sources: Sequence[object]
) -> dict[str, str]:
    software = _object(item["properties"].get("processing:software"))
    radiometry = _object(history.get("radiometry"))
    bands = _list(_object(item["assets"].get("data")).get("bands"))
    facts = {
        "file": str(scene.path),
        "size": f"{scene.width} x {scene.height} pixels, {scene.count} bands, {scene.dtype}",
        "holds": ", ".join(str(_object(band).get("name")) for band in bands),
        "model": scene.tags["GEOMOE_MODEL"],
        "weights": scene.tags["GEOMOE_WEIGHTS"],
        "source": ", ".join(str(_object(source).get("name")) for source in sources),
        "SHA-256": scene.tags["GEOMOE_SOURCE"],
        "scale": scene.tags["GEOMOE_SCALE"],
        "bands": scene.tags["GEOMOE_BANDS"].strip("[]"),
        "radiometry": str(radiometry.get("rule")),
        "tile": scene.tags["GEOMOE_TILE"],
        "fallback": "bicubic where routing is unlike training" if history.get("fallback") is True else "none",
        "device": str(history.get("device")),
        "versions": ", ".join(f"{name} {version}" for name, version in software.items()),
    }
    return {name: printable(fact) for name, fact in facts.items()}
