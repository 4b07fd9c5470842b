"""What a model that sees whole samples says: a row for each image of a folder, or window of a scene."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor

from geomoe.data.images import find_images, read_picture, to_unit
from geomoe.data.labels import resized
from geomoe.errors import GeomoeError, expect
from geomoe.files import overlap, writable_place
from geomoe.models import LoadedModel
from geomoe.models.contract import Output
from geomoe.models.device import pick_device
from geomoe.models.precision import AskedPrecision, Precision, computing_in, pick_precision
from geomoe.pipeline.choice import brought_otherwise
from geomoe.pipeline.history import geomoe_version
from geomoe.pipeline.output import window_of
from geomoe.pipeline.runner import Predictor, hardware, is_measured, options_of, radiometry_of, takes_values
from geomoe.pipeline.table_record import ENDINGS, image_digests, record_path, write_geojson, write_table
from geomoe.pipeline.tiles import Box
from geomoe.raster.formats.open import open_scene, source_files
from geomoe.raster.formats.sentinel2 import is_product
from geomoe.raster.formats.watch import ChangedError, Watch, contents
from geomoe.raster.read.bands import exact_bands
from geomoe.raster.read.radiometry import Radiometry
from geomoe.raster.read.sample import look
from geomoe.raster.read.scene import Scene
from geomoe.raster.read.validity import fill_invalid
from geomoe.raster.stac.footprint import footprint
from geomoe.raster.stac.item import json_number
from geomoe.raster.write.metadata import same_place

__all__ = ["ENDINGS", "TableReport", "check_table", "predict_table"]

_BATCH = 32
Row = dict[str, Any]


@dataclass(frozen=True)
class TableReport:
    """What was done.

    Attributes:
        output: the file written.
        rows: images or windows in it.
        of: which of the two.
        empty: windows without a valid pixel, of which there is no row.
        window: side of a window in pixels of the scene; None of images.
        notes: what its user should know, a sentence each.
    """

    output: Path
    rows: int
    of: str
    empty: int = 0
    window: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sample:
    """One image, as the model is shown it, and what stands before the answer in its row."""

    row: Row
    image: Tensor
    place: Mapping[str, Any] | None = None


def _of_label(output: Output, answer: Tensor) -> Row:
    shares = answer.softmax(0)
    best = int(shares.argmax())
    return {"class": best + 1, "name": output.classes[best], "confidence": round(float(shares[best]), 4)}


def _of_numbers(output: Output, answer: Tensor) -> Row:
    kind = output.kind.removesuffix("s")
    return {f"{kind}_{i}": float(f"{value:.6g}") for i, value in enumerate(answer.tolist(), 1)}


_COLUMNS: dict[str, Callable[[Output, Tensor], Row]] = {
    "label": _of_label, "values": _of_numbers, "features": _of_numbers
}  # fmt: skip
"""Of each kind of output of a whole sample, what a row says of the answer ``[channels]``, by column."""


def check_table(src: str | os.PathLike[str], dst: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise GeomoeError where no table of a scene or folder can be written to ``dst``."""
    path = Path(dst)
    if path.suffix.lower() not in ENDINGS:
        raise GeomoeError(f"{path.name!r}: a table ends in {' or '.join(ENDINGS)}, a map in .tif")
    writes = [path] if path.suffix.lower() == ".geojson" else [path, record_path(path)]
    writable_place(dst)  # as it was given: a Path of an address is one of a folder
    for file in writes:
        writable_place(file)
        if file.exists() and not overwrite:
            raise GeomoeError(f"{file} exists already; choose another output or allow it with --overwrite")
        if file.exists() and not os.access(file, os.W_OK):
            raise GeomoeError(f"{file} is write-protected; choose another output or change its permissions")
    if not Path(src).exists():
        raise GeomoeError(f"{src} does not exist; give a folder of images, or a scene")
    if not _is_folder(src) and (found := overlap(writes, source_files(src))):
        raise GeomoeError(f"{found[0]} is the input itself, or holds it; write to another file")


def predict_table(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    model: LoadedModel,
    tile: int | None = None,
    bands: str | Sequence[str | int] | None = None,
    nodata: float | str | None = None,
    device: str = "auto",
    precision: AskedPrecision = "auto",
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TableReport:
    """Write what a model says of whole samples: label with its probability, values or features.

    Images are brought to the size that the weights were trained on, as in training, or are shown as they are
    where the card says none. A scene is cut into
    windows, which lie side by side; those at its right and lower border are moved inwards so that they are
    whole. A window without a valid pixel has no row; of others ``valid`` says which share of the pixels is.

    What the answers depend on, from the SHA-256 of every file to that of the weights, is in a GeoJSON, or
    beside a CSV with the SHA-256 of that: ``table.csv.json``. `verify` reads it.

    Args:
        src: a folder of images, or a scene as for `upscale`.
        dst: ``.csv``; of a scene also ``.geojson``, windows as polygons on WGS 84.
        model: whose output is a label, values or features.
        tile: side of a window in pixels of the scene; that of the training images if ``None``. Of a folder
            the side to which images are brought, where the card says none.
        bands: of a scene, as of a `Request`.
        nodata: of a scene, as of a `Request`.
        device: as of a `Request`.
        precision: as of a `Request`.
        overwrite: whether ``dst`` may exist.
        progress: called with samples done and samples in all.

    Raises:
        GeomoeError: another kind of output, images that cannot be read, options of a scene or weights that
            take values as they are with a folder of images, or a scene without the model's bands
            or, for ``.geojson``, without a place; files that changed meanwhile.
    """
    check_table(src, dst, overwrite=overwrite)
    outputs = list(model.contract.outputs.values())
    if len(outputs) != 1 or outputs[0].kind not in _COLUMNS:
        gives = ", ".join(output.describe() for output in outputs)
        raise GeomoeError(f"{model.name} gives {gives}, no row of a table; write a map, .tif")
    known = model.card.recipe.get("size", tile)
    size = known if isinstance(known, int) else None
    expect(tile is None or tile > 0, "tile", tile, "a whole number from 1")
    path, placed = Path(dst), Path(dst).suffix.lower() == ".geojson"
    place = pick_device(device)
    computed = pick_precision(precision, place, is_measured(model))
    if _is_folder(src):
        if placed:
            raise GeomoeError(f"images of a folder have no place on the ground; write {path.stem}.csv")
        own = tile if "size" in model.card.recipe else None
        _refuse_of_scenes(model, bands=bands, nodata=nodata, tile=own)
        files = find_images(Path(src))
        before = image_digests(Path(src), files)
        dtypes = set[str]()
        images = _images(Path(src), files, model.contract.bands, size, dtypes)
        found = list(_answers(model, outputs[0], images, len(files), place, computed, progress))
        after = image_digests(Path(src), files)
        if changed := [Path(old["name"]) for old, new in zip(before, after, strict=True) if old != new]:
            raise ChangedError(changed)
        notes = _notes(sorted(dtypes), model)
        report = TableReport(path, len(found), "images", notes=notes)
        source: dict[str, Any] = {"size": size, "sources": before}
    else:
        side = tile or size
        if side is None:
            raise GeomoeError(f"the card of {model.name} says no size of images by which to cut; give --tile")
        watch = Watch(src)
        with open_scene(src, bands, nodata) as scene:  # type: ignore[arg-type]
            digest, sources = contents(scene)
            if changed := watch.changed():  # what was read of it until now may be of another state
                raise ChangedError(changed)
            chosen = exact_bands(scene, model.contract.bands, bands, model.contract.names)
            boxes = _boxes(scene.width, scene.height, side)
            scene, sample = look(scene, chosen)
            radiometry = radiometry_of(model, scene, sample)
            windows = _windows(scene, boxes, chosen, radiometry, size, placed)
            found = list(_answers(model, outputs[0], windows, len(boxes), place, computed, progress))
            if contents(scene) != (digest, sources):
                raise ChangedError(watch.changed() or [scene.path])
            source = {
                "tile": side,
                "size": size,
                "bands": chosen,
                "names": [[scene.descriptions[band - 1], *scene.aliases[band - 1]] for band in chosen],
                "nodata": None if scene.nodata is None else json_number(scene.nodata),
                "radiometry": json.loads(radiometry.describe()),
                "scene": digest,
                "sources": sources,
            }
        notes = _notes([scene.dtype], model)
        report = TableReport(path, len(found), "windows", len(boxes) - len(found), side, notes)
    if not found:
        raise GeomoeError(f"{src} has no window with a valid pixel; check its nodata value and mask")
    made = {**_made_by(model, place, computed), **source}
    if placed:
        features = [{"type": "Feature", "geometry": outline, "properties": row} for row, outline in found]
        write_geojson(path, features, made)
    else:
        write_table(path, [list(found[0][0]), *(list(row.values()) for row, _ in found)], made)
    return report


def _made_by(model: Predictor, device: torch.device, precision: Precision) -> dict[str, Any]:
    """What answers depend on but for the samples, as items of maps say it."""
    return {
        "version": geomoe_version(),
        "model": model.name,
        "weights": model.hash,
        "options": options_of(model),
        "torch": torch.__version__,
        "precision": precision,
        "device": hardware(device),
    }


def _is_folder(src: str | os.PathLike[str]) -> bool:
    """Whether it is a folder of images, and not of a product."""
    return Path(src).is_dir() and not is_product(Path(src))


def _refuse_of_scenes(model: LoadedModel, **given: object) -> None:
    """Raise GeomoeError for what images of a folder do not have: they are read and sized as in training."""
    for name, value in given.items():
        if value is not None:
            raise GeomoeError(f"--{name} is for a scene; leave it out for a folder of images")
    if takes_values(model):
        raise GeomoeError(
            f"{model.name} takes values as they are, and images of a folder are brought to 0 to 1; "
            "give it a scene"
        )


def _answers(
    model: LoadedModel,
    output: Output,
    samples: Iterator[_Sample | None],
    total: int,
    place: torch.device,
    precision: Precision,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Row, Mapping[str, Any] | None]]:
    model.model.to(place).eval()
    done = 0
    count = _BATCH if "size" in model.card.recipe else 1  # else images may be of any sizes
    while some := list(islice(samples, count)):
        shown = [sample for sample in some if sample is not None]
        if shown:
            images = torch.stack([sample.image for sample in shown]).to(place)
            with torch.inference_mode(), computing_in(precision, place):
                answers = model.model(images).float().cpu()
            if not answers.isfinite().all():
                raise GeomoeError(f"{model.name} gave NaN or infinity; check the images for extreme values")
            for sample, answer in zip(shown, answers.reshape(len(shown), -1), strict=True):
                yield {**sample.row, **_COLUMNS[output.kind](output, answer)}, sample.place
        for _ in some:
            done += 1
            progress(done, total)


def _notes(dtypes: Sequence[str], model: LoadedModel) -> tuple[str, ...]:
    return tuple(filter(None, (brought_otherwise(one, model.card, model.name) for one in dtypes)))


def _images(
    root: Path, files: Sequence[Path], bands: int, size: int | None, dtypes: set[str]
) -> Iterator[_Sample]:
    """Of each file; the types of those that were read are added to ``dtypes``."""
    for file in files:
        picture = read_picture(file, bands)
        dtypes.add(picture.dtype)
        image = _brought(picture.data, size)
        yield _Sample({"image": file.relative_to(root).as_posix()}, to_unit(image))


def _brought(image: Tensor, size: int | None) -> Tensor:
    return image if size is None else resized(image, size)


def _boxes(width: int, height: int, side: int) -> list[Box]:
    """Windows that cover a scene, row by row."""
    wide, high = min(side, width), min(side, height)
    lefts, tops = (
        [*range(0, whole - part, part), whole - part] for whole, part in ((width, wide), (height, high))
    )
    return [Box(x, y, wide, high) for y, x in product(tops, lefts)]


def _windows(
    scene: Scene,
    boxes: Sequence[Box],
    chosen: Sequence[int],
    radiometry: Radiometry,
    size: int | None,
    placed: bool,
) -> Iterator[_Sample | None]:
    """The windows of a scene; None for one without a valid pixel."""
    for box in boxes:
        data, valid = scene.read(window_of(box, 1), chosen)
        share = float(valid.all(0).mean())
        if not share:
            yield None
            continue
        shown: NDArray[np.float32] = fill_invalid(radiometry.to_model(data), valid)
        row = {"x": box.x, "y": box.y, "width": box.width, "height": box.height, "valid": round(share, 4)}
        outline = _outline(scene, box) if placed else None
        yield _Sample(row, _brought(torch.from_numpy(shown), size), outline)


def _outline(scene: Scene, box: Box) -> Mapping[str, Any]:
    """A window on WGS 84."""
    whole = same_place(scene, dtype="uint8", descriptions=("",), scales=(1.0,), nodata=0)
    moved = None if scene.transform is None else scene.transform * Affine.translation(box.x, box.y)
    found = footprint(replace(whole, width=box.width, height=box.height, transform=moved, gcps=(), rpcs=None))
    if found is None:
        raise GeomoeError(f"{scene.path.name} has no transform and CRS that place it; write a table, .csv")
    return found.geometry
