"""What an output of geomoe says of how it was made, for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geomoe.pipeline.history import model_item_name
from geomoe.printable import counted, printable
from geomoe.raster.read.names import listed
from geomoe.raster.read.scene import Scene

__all__ = ["as_list", "as_object", "facts_of", "facts_of_table", "model_item_of"]

_NODATA_BY = {"user": ", as its user said", "area": ", which all bands of a large area have"}


def facts_of(
    scene: Scene, item: Mapping[str, Any], record: Mapping[str, Any], name: str | None
) -> dict[str, str]:
    """Facts about an output, in the order in which they are to be read.

    Args:
        scene: the output.
        item: its STAC item.
        record: the configuration in the item.
        name: under which the output was written, by its item.
    """
    software = as_object(item["properties"].get("processing:software"))
    sources = as_list(item["properties"].get("geomoe:sources"))
    contract, nodata = as_object(record.get("contract")), as_object(record.get("nodata"))
    bands = as_list(as_object(item["assets"].get("data")).get("bands"))
    model = model_item_of(record)
    beside = os.path.lexists(scene.path.with_name(model))
    written = (
        {} if name in (None, scene.path.name) else {"written as": f"{name}, to which its item's links point"}
    )
    facts = {
        "file": str(scene.path),
        **written,
        "size": f"{scene.width} x {scene.height} pixels, {counted(scene.count, 'band')}, {scene.dtype}",
        "holds": ", ".join(str(as_object(band).get("name")) for band in bands),
        "model": f"{record.get('model')}{'' if beside else f' ({model} is not beside it, and not checked)'}",
        "weights": str(record.get("weights")),
        "source": ", ".join(str(as_object(source).get("name")) for source in sources),
        "SHA-256": str(record.get("scene")),
        "scale": str(contract.get("scale")),
        "bands": str(record.get("bands")).strip("[]"),
        "nodata": f"{nodata.get('value')}{_NODATA_BY.get(str(nodata.get('by')), '')}",
        "radiometry": str(as_object(record.get("radiometry")).get("rule")),
        "tile": str(record.get("tile")),
        "fallback": "interpolated where unlike training" if record.get("fallback") is True else "none",
        "conserve": "means are the source's pixels" if record.get("conserve") is True else "no",
        "precision": str(record.get("precision", "float32")),
        "device": str(record.get("device")),
        "versions": ", ".join(f"{name} {version}" for name, version in software.items()),
    }
    return {name: printable(fact) for name, fact in facts.items()}


def facts_of_table(path: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Facts about a table, by its record, as those of an output."""
    written, sources = as_object(record.get("table")).get("name"), as_list(record.get("sources"))
    windows = {
        "SHA-256": str(record.get("scene")),
        "bands": str(record.get("bands")).strip("[]"),
        "nodata": str(record.get("nodata")),
        "radiometry": str(as_object(record.get("radiometry")).get("rule")),
        "tile": str(record.get("tile")),
    }
    facts = {
        "file": str(path),
        **({} if written == path.name else {"written as": str(written)}),
        "model": str(record.get("model")),
        "weights": str(record.get("weights")),
        "source": listed([str(as_object(source).get("name")) for source in sources]),
        **(windows if "scene" in record else {"images": str(len(sources))}),
        "precision": str(record.get("precision")),
        "device": str(record.get("device")),
        "versions": f"geomoe {record.get('version')}, torch {record.get('torch')}",
    }
    return {name: printable(fact) for name, fact in facts.items()}


def model_item_of(record: Mapping[str, Any]) -> str:
    """The file of the model's item, by the configuration of an output."""
    options = as_object(record.get("options"))
    return model_item_name(str(record.get("model")), str(record.get("weights")), options)


def as_object(value: object) -> dict[str, Any]:
    """A JSON object; an empty one where there is something else."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """A JSON array; an empty one where there is something else."""
    return value if isinstance(value, list) else []
