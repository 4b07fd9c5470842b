"""Whether a file is still what geomoe made, and of what it was made."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.pipeline.facts import as_list, as_object, facts_of
from geomoe.pipeline.history import (
    IMAGE,
    lineage,
    model_item_name,
    model_link,
    output_link,
    scene_link,
    seal,
    title,
)
from geomoe.raster.metadata import carried_over
from geomoe.raster.open import open_scene
from geomoe.raster.safety import beside
from geomoe.raster.scene import Scene
from geomoe.raster.stac import (
    file_fields,
    file_name,
    href,
    item_bytes,
    item_path,
    pixel_metres,
    raster_item,
    read_item,
)
from geomoe.raster.stack import StackScene

__all__ = ["Verification", "verify"]

_ENDINGS = (".tif", ".tiff", ".TIF", ".TIFF")

# Of each tag, where the item says the same.
_SAME = {
    "GEOMOE_VERSION": ("version",),
    "GEOMOE_MODEL": ("model",),
    "GEOMOE_SOURCE": ("scene",),
    "GEOMOE_WEIGHTS": ("weights",),
    "GEOMOE_SCALE": ("contract", "scale"),
    "GEOMOE_BANDS": ("bands",),
    "GEOMOE_TILE": ("tile",),
    "GEOMOE_NODATA": ("nodata", "said"),
    "GEOMOE_FALLBACK": ("fallback",),
    "GEOMOE_CONSERVE": ("conserve",),
    "GEOMOE_PRECISION": ("precision",),
    "GEOMOE_RADIOMETRY": ("radiometry",),
}
_LATER = ("GEOMOE_CONSERVE", "GEOMOE_PRECISION")
"""Options that 0.1 did not have: its outputs have neither tag nor entry."""
_JSON = (
    "GEOMOE_SCALE", "GEOMOE_BANDS", "GEOMOE_TILE", "GEOMOE_NODATA", "GEOMOE_FALLBACK", "GEOMOE_CONSERVE",
    "GEOMOE_RADIOMETRY", "GEOMOE_REFERENCE",
)  # fmt: skip


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
    change of the file, of which its item has the checksum, and of the item, of which the file has a hash;
    added links do not count. Of the model's item, name, weights and contract are compared, and all
    that it says if ``weights`` are given. Files beside it that other tools read with it are found, too.

    File and item may have been renamed or copied together, with or without the model's item: what they say is
    compared with the name that the file was written under, and the checksum tells whose item it is.

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
        missing = [tag for tag in _SAME if tag not in scene.tags and tag not in _LATER]
        if missing:
            raise GeomoeError(f"{image.name} was not made by geomoe: it has no tag {missing[0]}")
        item = read_item(item_file)
        history = as_object(item["properties"].get("geomoe:configuration"))
        sources = as_list(item["properties"].get("geomoe:sources"))
        name = _written_as(item) or scene.path.name
        faults = [
            *_of_file(scene, item),
            *_of_tags(scene, name, history, sources),
            *_of_history(scene, name, item, history, sources),
            *_of_model(scene, item, history),
            *_of_seal(scene, item),
            *_of_links(scene, item, history, sources),
            *_of_neighbours(image),
            *([] if source is None else _of_source(scene, source, history)),
            *([] if weights is None else _of_weights(scene, item_file, weights)),
        ]
        facts = facts_of(scene, item, history, sources, _written_as(item))
        return Verification(image, facts, tuple(dict.fromkeys(faults)))


def _files(path: Path) -> tuple[Path, Path]:
    """The GeoTIFF and its item, of which one was named."""
    if not path.name.endswith(".stac.json"):
        return path, item_path(path)
    name = _written_as(read_item(path))
    if name is None:
        raise GeomoeError(f"{path.name} is no item of an output of geomoe: it names no file beside it")
    # Renamed together, they have one name again; the file that the item names may be the one copied from.
    for ending in dict.fromkeys((Path(name).suffix, *_ENDINGS)):
        beside = path.with_name(path.name.removesuffix(".stac.json") + ending)
        if beside.is_file():
            return beside, path
    return path.with_name(name), path


def _written_as(item: Mapping[str, Any]) -> str | None:
    """The name under which a file was written, by its item; ``None`` where that names no file beside it."""
    return file_name(as_object(item["assets"].get("data")).get("href"))


def _of_file(scene: Scene, item: Mapping[str, Any]) -> list[str]:
    asset = as_object(item["assets"].get("data"))
    name = _written_as(item)
    now = file_fields(scene.path)
    same = all(asset.get(field) == now[field] for field in ("file:size", "file:checksum"))
    if name is None or (name != scene.path.name and not same):
        return [f"its item is of another file, {asset.get('href')!r}"]
    if asset.get("file:size") != now["file:size"]:
        return [f"it has {now['file:size']} bytes, its item says {asset.get('file:size')!r}: it was changed"]
    if asset.get("file:checksum") != now["file:checksum"]:
        return ["its SHA-256 is not the one of its item: the file or its item was changed"]
    meta = carried_over(scene, range(1, scene.count + 1), 1, {})
    now, said = _of_raster(raster_item(Path(name), meta, scene.nodata, None)), _of_raster(item)
    return [
        f"its item says otherwise of its {what}"
        for what in now | said
        if not _alike(now.get(what), said.get(what))
    ]


def _of_raster(item: Mapping[str, Any]) -> dict[str, Any]:
    """What an item says that follows from the file; of its place in time there may be more in the scene."""
    parts = {"": item, "asset's ": as_object(item["assets"].get("data"))}
    told = {f"{of}{key}": value for of, part in parts.items() for key, value in part.items()}
    told |= {key: value for key, value in item["properties"].items() if key.startswith("proj:")}
    told["assets"] = sorted(item["assets"])
    # A GeoTIFF does not keep every CRS without a code to the letter.
    for other in ("properties", "links", "proj:wkt2", "asset's file:size", "asset's file:checksum"):
        told.pop(other, None)
    return told


def _alike(one: object, other: object) -> bool:
    """Whether two JSON values are the same, but for rounding in the last digits of a number.

    Where pixels are points, a file has the corner half a pixel away.
    """
    if isinstance(one, int | float) and isinstance(other, int | float):
        try:
            return math.isclose(one, other, rel_tol=1e-8, abs_tol=2e-9)
        except OverflowError:  # of an integer larger than any float
            return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one == other


def _agrees(said: object, now: object) -> bool:
    """Whether all that is said is so now; an earlier geomoe, or an earlier card, did not say all of it."""
    if isinstance(said, dict) and isinstance(now, dict):
        return said.keys() <= now.keys() and all(_agrees(said[key], now[key]) for key in said)
    return _alike(said, now)


def _of_tags(scene: Scene, name: str, history: Mapping[str, Any], sources: Sequence[object]) -> list[str]:
    wrong = [
        tag
        for tag, place in _SAME.items()
        if (_tag(scene, tag) if tag in scene.tags else _NOWHERE) != _at(history, place)
    ]
    # Of a product the tag is over what is read of it, of a plain file it is the file's.
    if _plain(sources) and as_object(sources[0]).get("sha256") != scene.tags["GEOMOE_SOURCE"]:
        wrong.append("GEOMOE_SOURCE")
    layer, reference = scene.tags.get("GEOMOE_LAYER"), _tag(scene, "GEOMOE_REFERENCE")
    layers = zip(as_list(history.get("outputs")), (IMAGE, *as_list(history.get("layers"))), strict=False)
    if layer is not None and (name, layer) not in layers:
        wrong.append("GEOMOE_LAYER")
    if reference is not None and reference != history.get("reliability"):
        wrong.append("GEOMOE_REFERENCE")
    return [f"its tag {tag} and its item do not say the same" for tag in wrong]


def _tag(scene: Scene, tag: str) -> object:
    try:
        return json.loads(scene.tags.get(tag, "null")) if tag in _JSON else scene.tags[tag]
    except (ValueError, RecursionError):
        return None if tag in _JSON else ""


def _at(value: object, place: tuple[str, ...]) -> object:
    for name in place:
        value = as_object(value).get(name, _NOWHERE)
    return value


_NOWHERE = object()


def _plain(sources: Sequence[object]) -> bool:
    """Whether the scene was one file, and no product."""
    return len(sources) == 1 and not str(as_object(sources[0]).get("name")).lower().endswith(".zip")


def _of_history(
    scene: Scene,
    name: str,
    item: Mapping[str, Any],
    history: Mapping[str, Any],
    sources: Sequence[object],
) -> list[str]:
    """What else follows from the file and the configuration."""
    said, outputs = item["properties"], as_list(history.get("outputs"))
    if name not in outputs:
        return ["it is none of the outputs of its item"]
    image = outputs[0] == name
    layer = () if image else scene.descriptions
    software = as_object(said.get("processing:software"))
    try:
        named = str(said.get("title")).removesuffix(title("", history, layer))
        pixel = pixel_metres(scene)
        gsd = None if pixel is None else pixel * (history["contract"]["scale"] if image else 1)
        pairs = {
            "title": (said.get("title"), title(named, history, layer)),
            "lineage": (said.get("processing:lineage"), lineage(named, history, layer)),
            "gsd": (said.get("gsd"), gsd),
            "software": (
                [software.get("geomoe"), software.get("torch")],
                [history.get("version"), history.get("torch")],
            ),
        }
    except (LookupError, TypeError, ArithmeticError, RecursionError):
        return ["its item has no configuration that geomoe wrote"]
    if scene.acquired is not None and _plain(sources):
        pairs["time"] = (said.get("datetime"), scene.acquired)
    return [f"its item's {what} is not as its history says" for what in pairs if not _alike(*pairs[what])]


def _of_model(scene: Scene, item: Mapping[str, Any], history: Mapping[str, Any]) -> list[str]:
    digest = scene.tags["GEOMOE_WEIGHTS"]
    name = model_item_name(scene.tags["GEOMOE_MODEL"], digest)
    if file_name(href(name)) is None or not any(link["href"] == href(name) for link in item["links"]):
        return [f"its item has no link to the model's, {name}"]
    if not os.path.lexists(scene.path.with_name(name)):
        return []  # left behind by who copied the file
    try:
        model = read_item(scene.path.with_name(name))
    except GeomoeError as error:
        return [f"the model's item: {error}"]
    if model["properties"].get("geomoe:weights") != digest:
        return [f"{name} is of other weights than the file"]
    if model["id"] != f"{scene.tags['GEOMOE_MODEL']}.{digest[:12]}":
        return [f"{name} is of another model than the file"]
    if not _agrees(history.get("contract"), model["properties"].get("geomoe:contract")):
        return [f"{name} and the file's item have two contracts"]
    return []


def _of_seal(scene: Scene, item: Mapping[str, Any]) -> list[str]:
    """What nothing else tells of an item: the file has a hash of it."""
    if scene.tags.get("GEOMOE_ITEM") in (None, seal(item)):
        return []
    return ["its item is not the one that was written with it: something in it was changed"]


def _of_links(
    scene: Scene, item: Mapping[str, Any], history: Mapping[str, Any], sources: Sequence[object]
) -> list[str]:
    """Links that geomoe does not write; those to other places are of a catalogue that took the item in."""
    written = [model_link(model_item_name(scene.tags["GEOMOE_MODEL"], scene.tags["GEOMOE_WEIGHTS"]))]
    files = [Path(name) for name in as_list(history.get("outputs")) if str(name).endswith(_ENDINGS)]
    written += [output_link(item_path(file).name) for file in files]
    written += [scene_link(str(as_object(source).get("name"))) for source in sources]
    own = [link for link in item["links"] if file_name(link.get("href")) is not None]
    return ["its item has a link that is not as it was written" for link in own if link not in written]


def _of_neighbours(image: Path) -> list[str]:
    return [
        f"{file.name} stands beside it, which other tools read with it: remove it" for file in beside(image)
    ]


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
    names = [[str(name) for name in as_list(row)] for row in as_list(history.get("names"))]
    return [None, *([[row[place] for row in names] for place in (0, -1)] if all(names) else [])]


def _of_weights(scene: Scene, item_file: Path, weights: str) -> list[str]:
    from geomoe.models import load  # torch, which nothing else here needs
    from geomoe.pipeline.provenance import model_item

    scale = _tag(scene, "GEOMOE_SCALE")
    model = load(weights, scale if isinstance(scale, int) else None)
    if model.hash != scene.tags["GEOMOE_WEIGHTS"]:
        return [f"it was made by other weights than {model.name} ({model.hash[:12]})"]
    model = replace(model, name=scene.tags["GEOMOE_MODEL"])  # the file may have another name now
    path = item_file.with_name(model_item_name(model.name, model.hash))
    try:
        said = read_item(path)
    except GeomoeError:
        return []  # told already
    now = json.loads(item_bytes(model_item(model), path.name))
    for each in (said, now):
        each.pop("stac_extensions")  # of the geomoe that wrote it
        each["properties"].pop("mlm:framework_version", None)  # of its torch
    return [] if _agrees(said, now) else [f"{path.name} does not say what the weights say of themselves"]
