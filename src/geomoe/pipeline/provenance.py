"""How each output of a job came to be, as STAC items: one beside every file, and one of the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import rasterio
import torch

from geomoe.errors import GeomoeError
from geomoe.models import Card
from geomoe.models.contract import Tiling
from geomoe.models.registry import describe
from geomoe.pipeline.history import (
    geomoe_version,
    lineage,
    model_id,
    model_item_name,
    model_link,
    output_link,
    scene_link,
    title,
)
from geomoe.pipeline.output import Output
from geomoe.pipeline.runner import Predictor, options_of, tiling_of
from geomoe.pipeline.writers import writer_of
from geomoe.pipeline.writers.base import Writer
from geomoe.raster.read.known import KnownScene, pixel_metres
from geomoe.raster.read.scene import Scene
from geomoe.raster.stac.footprint import Footprint, footprint
from geomoe.raster.stac.item import EXTENSIONS, class_object, item_bytes, raster_item, when

__all__ = ["Provenance", "Record", "model_item"]


@dataclass(frozen=True)
class Record:
    """What made the outputs of a job.

    Attributes:
        key: everything that the pixels depend on, as JSON values.
        scene: that was read.
        bands: of it, 1-based, with their ``names``.
        known: of the scene beside its pixels.
        remarks: on the weights, sentences.
        sources: name and SHA-256 of each file of the scene.
        model: that drew.
        writer: of the first output.
        outputs: of the job.
    """

    key: Mapping[str, Any]
    scene: Scene
    bands: Sequence[int]
    names: Sequence[str]
    known: KnownScene
    remarks: Sequence[str]
    sources: Sequence[Mapping[str, str]]
    model: Predictor
    writer: Writer
    outputs: Sequence[Output]


class Provenance:
    """Items of a job's outputs, and of its model.

    They hold no time of writing and no path of any machine: a job that was interrupted ends with the same
    bytes as one that was not, wherever it is done.

    Attributes:
        model: name and content of the model's item, which all scenes of a folder share.

    Raises:
        GeomoeError: if an item would not be valid; now, as at the end it would cost the work of a night.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._items: dict[tuple[Path, str], str] = {}
        self._outlines: dict[tuple[int, int], Footprint | None] = {}
        name = model_item_name(record.model.name, record.model.hash, options_of(record.model))
        self.model = name, item_bytes(model_item(record.model), name)
        for output in record.outputs:
            item_bytes(self.item(output, output.meta.nodata), output.target.item.name)

    def item(self, output: Output, nodata: float | None) -> dict[str, Any]:
        """The item that goes with an output, all of it but size and checksum of the file.

        Args:
            output: of the job.
            nodata: that is written.
        """
        key = (output.target.path, str(nodata))
        if key not in self._items:
            size = (output.meta.width, output.meta.height)
            if size not in self._outlines:  # maps are on one grid
                self._outlines[size] = footprint(output.meta)
            acquired, outline = self._record.scene.acquired, self._outlines[size]
            item = raster_item(output.target.path, output.meta, nodata, acquired, outline)
            item["properties"] |= self._history(output)
            item["links"] = self._links(output)
            self._items[key] = json.dumps(item)
        made: dict[str, Any] = json.loads(self._items[key])
        return made

    def _history(self, output: Output) -> dict[str, Any]:
        of, configuration = self._record, self._configuration
        layer = () if output is of.outputs[0] else output.meta.descriptions
        # Of the sensor, or what is nearest to it here: upscaling makes pixels smaller, not the sensor finer.
        gsd = pixel_metres(of.scene.transform, of.scene.crs)
        scene, writer = " and ".join(part.path.name for part in of.scene.parts), of.writer
        return {
            "title": title(scene, configuration, layer, writer.title),
            **({} if gsd is None else {"gsd": gsd}),
            "processing:software": {
                "geomoe": geomoe_version(),
                "torch": torch.__version__,
                "rasterio": rasterio.__version__,
                "gdal": rasterio.__gdal_version__,
            },
            "processing:lineage": lineage(scene, configuration, layer, writer.noun, writer.caveat),
            "geomoe:known": {name: value for name, value in asdict(of.known).items() if value is not None},
            **({"geomoe:remarks": list(of.remarks)} if of.remarks else {}),
            "geomoe:configuration": configuration,
            "geomoe:sources": list(of.sources),
        }

    @cached_property
    def _configuration(self) -> dict[str, Any]:
        """What the pixels depend on; of the outputs the names alone."""
        of = self._record
        return {
            **of.key,
            # By which a product opens with these bands again; of one without a name, how it is called.
            "names": [
                [name, *of.scene.aliases[band - 1]] for name, band in zip(of.names, of.bands, strict=True)
            ],
            "radiometry": json.loads(of.key["radiometry"]),
            "outputs": [output.target.path.name for output in of.outputs],
        }

    def _links(self, output: Output) -> list[dict[str, str]]:
        """To files of the same folder alone: a path to another one would be one of this machine."""
        of, folder = self._record, output.target.path.parent
        links = []
        for part in of.scene.parts:
            scene = part.path.resolve()
            if part.files == (part.path,) and scene.parent == folder:
                links.append(scene_link(scene.name))
        for other in of.outputs:
            if other is not output and other.target.path.parent == folder:
                links.append(output_link(other.target.item.name))
        return [*links, model_link(self.model[0])]


def model_item(model: Predictor) -> dict[str, Any]:
    """The item of a model by the machine learning model extension.

    Its input and output come from its contract; what its weights say of themselves from their card, where
    they have one. It names no place where they are: they are found by their hash.
    """
    card = getattr(model, "card", None)
    contract, tiling, writer = model.contract, tiling_of(model), writer_of(model)
    # With a description, too, which the version that the model extension refers to asks for.
    classes = [{**class_object(each), "description": each.name} for each in writer.classes]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSIONS[name] for name in ("mlm", *(("classification",) if classes else ()))],
        "id": model_id(model.name, model.hash, options_of(model)),
        "geometry": None,
        "properties": {
            **_written(card),
            "title": f"{model.name}, {writer.does}",
            "mlm:name": _mlm_name(model.name),
            "mlm:architecture": type(model.model).__name__,
            "mlm:tasks": [writer.mlm_task],
            "mlm:framework": "PyTorch",
            **({"mlm:framework_version": torch.__version__} if _SEMVER.match(torch.__version__) else {}),
            "mlm:total_parameters": sum(weight.numel() for weight in model.model.parameters()),
            "mlm:input": [
                {
                    "name": "image",
                    "bands": list(contract.names),  # empty where nobody knows which they are
                    "input": _array(contract.bands, "bands" if contract.names else "channel"),
                    "description": " ".join(filter(None, (_scaling(card), writer.takes, _tiles(tiling)))),
                }
            ],
            "mlm:output": [
                {
                    "name": writer.noun,
                    "tasks": [writer.mlm_task],
                    "result": _array(writer.channels(contract.bands)),
                    **({"classification:classes": classes} if classes else {}),
                    "description": writer.gives,
                }
            ],
            "geomoe:weights": model.hash,
            "geomoe:contract": contract.record(),
            **({} if card is None else _carded(card)),
        },
        "links": [],
        "assets": {
            "weights": {
                "href": f"geomoe:weights/{model.hash}",
                "title": "the weights, by their hash",
                "description": "SHA-256 of names, shapes and bytes of all tensors; 'geomoe models' shows "
                "which weights are there.",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors.torch.save_file",
            }
        },
    }


_SCALING = {
    "unit": "0 to 1 for nearly all pixels, in float32: uint8 divided by 255, other types from their 0.1 to "
    "their 99.9 percentile, band by band.",
    "values": "As they are, in float32; the model knows mean and deviation of its bands.",
}
# As the extension asks: a name that others can write.
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")
_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
_SPDX = re.compile(r"[\w.+-]+")


def _scaling(card: Card | None) -> str:
    return _SCALING["unit" if card is None else card.radiometry]


def _tiles(tiling: Tiling) -> str:
    return (
        f"Tiles of {tiling.tile} pixels and a margin of {tiling.margin}, from multiples of {tiling.multiple}."
    )


def _mlm_name(name: str) -> str:
    return name if _NAME.fullmatch(name) else f"model {re.sub('[^a-zA-Z0-9]+', '-', name)}".rstrip("- ")


def _array(bands: int, called: str = "channel") -> dict[str, Any]:
    return {
        "shape": [-1, bands, -1, -1],
        "dim_order": ["batch", called, "height", "width"],
        "data_type": "float32",
    }


def _written(card: Card | None) -> dict[str, Any]:
    """The day on which the weights were written, where their card says it."""
    if card is None or not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", str(card.date)):
        return when(None)
    day = card.date
    return {"datetime": None, "start_datetime": f"{day}T00:00:00Z", "end_datetime": f"{day}T23:59:59Z"}


def _carded(card: Card) -> dict[str, Any]:
    # What a file says of itself can be anything that JSON can be, and more: NaN among scores.
    told: dict[str, Any] = json.loads(json.dumps(asdict(card)), parse_constant=str)
    source = _source(told["data"]) if isinstance(told["data"], dict) else None
    licence = str(card.licence)
    return {
        "mlm:architecture": _architecture(card.model),
        "mlm:pretrained": True,
        **({"mlm:pretrained_source": source} if isinstance(source, str) and source else {}),
        **({"mlm:hyperparameters": card.config} if card.config else {}),
        **({"license": licence} if _SPDX.fullmatch(licence) else {}),
        **{
            f"geomoe:{name}": value
            for name, value in told.items()
            if name not in _TOLD and (value or name not in _SELDOM)
        },
    }


_TOLD = ("activations", "bands", "config", "drift", "hash")  # by fields of their own, or of no use in an item
_SELDOM = ("bfloat16", "measured")  # which cards had not always, and their items neither


def _source(data: Mapping[str, Any]) -> Any:
    """Where images are from; of a training set that is mixed, of each of its sources, once."""
    parts = data.get("sources")
    if not isinstance(parts, list):
        return data.get("source")
    of_each = (part.get("source") for part in parts if isinstance(part, dict))
    return "; ".join(dict.fromkeys(one for one in of_each if isinstance(one, str) and one))


def _architecture(name: str) -> str:
    try:
        return describe(name)
    except GeomoeError:
        return name
