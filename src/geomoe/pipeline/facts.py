"""What an output of geomoe says of how it was made, for people."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from geomoe.pipeline.history import model_item_name
from geomoe.printable import printable
from geomoe.raster.scene import Scene

__all__ = ["as_list", "as_object", "facts_of"]

_NODATA_BY = {"user": ", as its user said", "area": ", which all bands of a large area have"}


def facts_of(
    scene: Scene,
    item: Mapping[str, Any],
    history: Mapping[str, Any],
    sources: Sequence[object],
    name: str | None,
) -> dict[str, str]:
    """Facts about an output, in the order in which they are to be read.

    Args:
        scene: the output.
        item: its STAC item.
        history: the configuration in the item.
        sources: that the item names.
        name: under which the output was written, by its item.
    """
    software = as_object(item["properties"].get("processing:software"))
    radiometry, nodata = as_object(history.get("radiometry")), as_object(history.get("nodata"))
    bands = as_list(as_object(item["assets"].get("data")).get("bands"))
    model = model_item_name(scene.tags["GEOMOE_MODEL"], scene.tags["GEOMOE_WEIGHTS"])
    there = os.path.lexists(scene.path.with_name(model))
    facts = {
        "file": str(scene.path),
        **(
            {}
            if name in (None, scene.path.name)
            else {"written as": f"{name}, to which its item's links point"}
        ),
        "size": f"{scene.width} x {scene.height} pixels, {scene.count} bands, {scene.dtype}",
        "holds": ", ".join(str(as_object(band).get("name")) for band in bands),
        "model": scene.tags["GEOMOE_MODEL"]
        + ("" if there else f" ({model} is not beside it, and not checked)"),
        "weights": scene.tags["GEOMOE_WEIGHTS"],
        "source": ", ".join(str(as_object(source).get("name")) for source in sources),
        "SHA-256": scene.tags["GEOMOE_SOURCE"],
        "scale": scene.tags["GEOMOE_SCALE"],
        "bands": scene.tags["GEOMOE_BANDS"].strip("[]"),
        "nodata": f"{nodata.get('value')}{_NODATA_BY.get(str(nodata.get('by')), '')}",
        "radiometry": str(radiometry.get("rule")),
        "tile": scene.tags["GEOMOE_TILE"],
        "fallback": "bicubic where routing is unlike training" if history.get("fallback") is True else "none",
        "conserve": "means are the source's pixels" if history.get("conserve") is True else "no",
        "precision": str(history.get("precision", "float32")),
        "device": str(history.get("device")),
        "versions": ", ".join(f"{name} {version}" for name, version in software.items()),
    }
    return {name: printable(fact) for name, fact in facts.items()}


def as_object(value: object) -> dict[str, Any]:
    """A JSON object; an empty one where something else stands."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """A JSON array; an empty one where something else stands."""
    return value if isinstance(value, list) else []
