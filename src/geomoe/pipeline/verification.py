"""Whether a file is still what geomoe made, and of what it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomoe.errors import GeomoeError
from geomoe.files import read_small
from geomoe.pipeline.facts import as_list, as_object, facts_of, facts_of_table, model_item_of
from geomoe.pipeline.history import IMAGE, model_id, model_link, output_link, scene_link, seal
from geomoe.pipeline.table_record import ENDINGS, image_digests, read_table
from geomoe.raster.formats.dates import open_dates
from geomoe.raster.formats.open import open_scene
from geomoe.raster.formats.stack import StackScene
from geomoe.raster.read.checks import NAMES, beside
from geomoe.raster.read.classes import category_names
from geomoe.raster.read.names import listed
from geomoe.raster.read.radiometry import AS_THEY_ARE
from geomoe.raster.read.scene import Scene
from geomoe.raster.stac.item import file_fields, item_bytes, read_item
from geomoe.raster.stac.links import file_name, href
from geomoe.raster.write.target import item_path

if TYPE_CHECKING:
    from geomoe.models import LoadedModel

__all__ = ["Verification", "verify"]

_ENDINGS = (".tif", ".tiff", ".TIF", ".TIFF")


@dataclass(frozen=True)
class Verification:
    """What was found of one output.

    Attributes:
        path: of the GeoTIFF or table.
        facts: what made it, by its item, in the order in which they are to be read.
        faults: what is not as it was made, a sentence each; none if all is.
    """

    path: Path
    facts: Mapping[str, str]
    faults: tuple[str, ...]


def verify(
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    after: str | os.PathLike[str] | None = None,
    weights: str | None = None,
) -> Verification:
    """Check an output of geomoe against its STAC item, and the item against the seal in the file.

    Nobody signs an item: who changes a file and its item alike is not found out. What is found is every
    change of the file, of which its item has the checksum, and of the item, of which the file has a hash;
    added links do not count. Of the model's item, name, weights and contract are compared, and all
    that it says if ``weights`` are given. Files beside it that other tools read with it are found, too.

    File and item may have been renamed or copied together, with or without the model's item: what they say is
    compared with the name that the file was written under, and the checksum tells whose item it is.

    Of a table what is said of the file holds for its rows, and what is said of the item for its record.

    Args:
        path: of a GeoTIFF that geomoe wrote, or of its item; of a table, or of the record beside it.
        source: if given, the scene or folder of images that it must have been made of.
        after: if given, the scene of the second date.
        weights: if given, name or file of the weights that it must have been made by.

    Raises:
        GeomoeError: for a file that cannot be read, is none of geomoe's, or has no item that can be read; and
            for a scene or weights that cannot be read.
    """
    place = Path(os.path.realpath(path))
    if place.name.lower().endswith((*ENDINGS, ".csv.json")):
        return _verify_table(place, source, weights)
    image, item_file = _files(place)
    with open_scene(image) as scene:
        if "GEOMOE_ITEM" not in scene.tags:
            raise GeomoeError(f"{image.name} was not made by geomoe: it has no tag GEOMOE_ITEM")
        item = read_item(item_file)
        record = as_object(item["properties"].get("geomoe:configuration"))
        faults = _of_file(scene, item) or _of_seal(scene, item)
        if not faults:  # else nothing that the item says can be relied on
            faults = [
                *_of_names(scene, item, record),
                *_of_model(scene, item, record),
                *_of_links(item, record),
                *([] if source is None else _of_source(source, after, record)),
                *([] if weights is None else _of_weights(item_file, record, weights)),
            ]
        faults += _of_neighbours(image, item)
        return Verification(
            image, facts_of(scene, item, record, _written_as(item)), tuple(dict.fromkeys(faults))
        )


def _verify_table(path: Path, source: str | os.PathLike[str] | None, weights: str | None) -> Verification:
    table, record, faults = read_table(path)
    if not faults:  # else nothing that the record says can be relied on
        if source is not None:
            faults += (
                _of_source(source, None, record) if "scene" in record else _of_images(Path(source), record)
            )
        if weights is not None:
            faults += _made_by(weights, record)[1]
    return Verification(table, facts_of_table(table, record), tuple(faults))


def _of_images(folder: Path, record: Mapping[str, Any]) -> list[str]:
    from geomoe.data.images import find_images  # torch, which nothing else here needs

    made = {
        str(as_object(row).get("name")): as_object(row).get("sha256") for row in as_list(record["sources"])
    }
    now = {row["name"]: row["sha256"] for row in image_digests(folder, find_images(folder))}
    other = sorted(name for name in made.keys() | now.keys() if made.get(name) != now.get(name))
    return [f"it was not made of {folder.name} as it is: {listed(other)} differ"] if other else []


def _files(path: Path) -> tuple[Path, Path]:
    """The GeoTIFF and its item, of which one was named."""
    if not path.name.endswith(".stac.json"):
        return path, item_path(path)
    name = _written_as(read_item(path))
    if name is None:
        raise GeomoeError(f"{path.name} is not the item of an output of geomoe: it names no file beside it")
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
    return [] if same else ["its SHA-256 is not the one of its item: the file or its item was changed"]


def _of_seal(scene: Scene, item: Mapping[str, Any]) -> list[str]:
    # That of 0.1 does not cover the lineage.
    if scene.tags["GEOMOE_ITEM"] in (seal(item), seal(item, "processing:lineage")):
        return []
    return ["its item is not the one that was written with it: something in it was changed"]


def _of_names(scene: Scene, item: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """The names of outputs, on which neither the file's bytes nor the seal may depend."""
    name = _written_as(item) or ""
    layers = zip(
        as_list(record.get("outputs")),
        (record.get("kind", IMAGE), *as_list(record.get("layers"))),
        strict=False,
    )
    if item["id"] != Path(name).stem or (name, scene.tags.get("GEOMOE_LAYER")) not in layers:
        return ["it is none of the outputs of its item"]
    return []


def _of_model(scene: Scene, item: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    name = model_item_of(record)
    if file_name(href(name)) is None or not any(link["href"] == href(name) for link in item["links"]):
        return [f"its item has no link to the model's, {name}"]
    if not os.path.lexists(scene.path.with_name(name)):
        return []  # left behind by who copied the file
    try:
        model = read_item(scene.path.with_name(name))
    except GeomoeError as error:
        return [f"the model's item: {error}"]
    if model["properties"].get("geomoe:weights") != record.get("weights"):
        return [f"{name} is of other weights than the file"]
    options = as_object(record.get("options"))
    if model["id"] != model_id(str(record.get("model")), str(record.get("weights")), options):
        return [f"{name} is of another model than the file"]
    if not _agrees(record.get("contract"), model["properties"].get("geomoe:contract")):
        return [f"{name} and the file's item have two contracts"]
    return []


def _of_links(item: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Links that geomoe does not write; those to other places are of a catalogue that took the item in."""
    sources = as_list(item["properties"].get("geomoe:sources"))
    files = [Path(name) for name in as_list(record.get("outputs")) if str(name).endswith(_ENDINGS)]
    written = [
        model_link(model_item_of(record)),
        *(output_link(item_path(file).name) for file in files),
        *(scene_link(str(as_object(source).get("name"))) for source in sources),
    ]
    own = [link for link in item["links"] if file_name(link.get("href")) is not None]
    return ["its item has a link that is not as it was written" for link in own if link not in written]


def _of_neighbours(image: Path, item: Mapping[str, Any]) -> list[str]:
    own = image.with_name(image.name + NAMES)
    return [
        f"{file.name} is beside it, which other tools read with it: remove it"
        for file in beside(image)
        if not (file == own and _is_of_names(file, item))
    ]


def _is_of_names(file: Path, item: Mapping[str, Any]) -> bool:
    """Whether a file beside a map of classes gives them the names that its item has, and says no more."""
    bands = as_list(as_object(item["assets"].get("data")).get("bands"))
    classes = [each for band in bands for each in as_list(band.get("classification:classes"))]
    names = {each["value"]: str(each.get("title")) for each in classes if each["value"]}
    try:
        return bool(names) and read_small(file) == category_names(names)
    except GeomoeError:
        return False


def _of_source(
    source: str | os.PathLike[str], after: str | os.PathLike[str] | None, record: Mapping[str, Any]
) -> list[str]:
    sensors = as_object(as_object(record.get("contract")).get("sensors"))
    first = int(next(iter(sensors.values()), 0))  # bands of the first date
    failed = []
    for bands in _selections(record):
        each = (bands, None) if bands is None or after is None else (bands[:first], bands[first:])
        try:
            with open_dates(source, after, each[0], after_bands=each[1]) as other:
                if other.digest() == record.get("scene"):
                    return []
                names = " and ".join(part.path.name for part in other.parts)
                fault = f"it was not made of {names}, or that was changed since"
                # All of a plain file counts, whatever is selected.
                if not any(isinstance(part, StackScene) for part in other.parts):
                    return [fault]
        except GeomoeError as error:
            failed.append(error)
    if len(failed) == len(_selections(record)):
        raise failed[0]
    return [fault]


def _selections(record: Mapping[str, Any]) -> list[list[str] | None]:
    """How a product may have been opened: as it is, or by names of its bands.

    The first name of a band is the usual one; the last is that of an item's asset, which tells grids apart.
    """
    names = [[str(name) for name in as_list(row)] for row in as_list(record.get("names"))]
    return [None, *([[row[place] for row in names] for place in (0, -1)] if all(names) else [])]


def _of_weights(item_file: Path, record: Mapping[str, Any], weights: str) -> list[str]:
    from geomoe.pipeline.provenance import model_item  # torch, which nothing else here needs

    scale = as_object(record.get("contract")).get("scale")
    scaled = isinstance(scale, int) and record.get("kind", IMAGE) == IMAGE
    model, faults = _made_by(weights, record, scale if scaled else None)
    if faults:
        return faults
    model = replace(model, name=str(record.get("model")))  # the file may have another name now
    path = item_file.with_name(model_item_of(record))
    try:
        said = read_item(path)
    except GeomoeError:
        return []  # told already
    item = json.loads(item_bytes(model_item(model), path.name))
    for each in (said, item):
        each.pop("stac_extensions")  # of the geomoe that wrote it
        each["properties"].pop("mlm:framework_version", None)  # of its torch
    return [] if _agrees(said, item) else [f"{path.name} does not say what the weights say of themselves"]


def _made_by(
    weights: str, record: Mapping[str, Any], scale: int | None = None
) -> tuple[LoadedModel, list[str]]:
    """Weights, and in what they are others than those that a record names."""
    from geomoe.models import load
    from geomoe.pipeline.runner import options_of, takes_values

    model = load(weights, scale)
    if model.hash != record.get("weights"):
        return model, [f"it was made by other weights than {model.name} ({model.hash[:12]})"]
    made, now = as_object(record.get("options")), options_of(model) or {}
    if other := [name for name, value in made.items() if name not in now or now[name] != value]:
        return model, [f"{model.name} has the tensors that made it, with another {', '.join(other)}"]
    if takes_values(model) != (as_object(record.get("radiometry")).get("rule") == AS_THEY_ARE):
        return model, [f"{model.name} has the tensors that made it, with another radiometry"]
    return model, []


def _agrees(said: object, now: object) -> bool:
    """Whether all that is said is so now; an earlier geomoe, or an earlier card, did not say all of it."""
    if isinstance(said, dict) and isinstance(now, dict):
        return said.keys() <= now.keys() and all(_agrees(said[key], now[key]) for key in said)
    return said == now
