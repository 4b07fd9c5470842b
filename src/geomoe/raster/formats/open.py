"""Whatever may be given as a scene, opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from geomoe.errors import GeomoeError
from geomoe.raster.formats.cube import open_cube
from geomoe.raster.formats.sentinel2 import METADATA, open_safe, product_around
from geomoe.raster.formats.stac_item import asset_files, open_item
from geomoe.raster.read.checks import local_file
from geomoe.raster.read.scene import Scene, open_file

__all__ = ["open_scene", "source_files"]


@contextmanager
def open_scene(
    path: str | os.PathLike[str],
    bands: str | Sequence[str | int] | None = None,
    nodata: float | Literal["none"] | None = None,
) -> Iterator[Scene]:
    """Open a local scene for reading, by what its name says it is.

    Args:
        path: a GeoTIFF or JPEG 2000; the folder (``.SAFE``), metadata file or zip of a Sentinel-2 product; a
            STAC item (``.json``) whose assets are local files; or a file ``.npz`` with a ``cube``.
        bands: what will be selected of it. A product of several grids is opened on the one that these names
            share; without names, on its finest. See :func:`geomoe.raster.formats.product.choose_bands`.
        nodata: of pixels without data, in place of what the scene declares; ``none``: there is no such value.

    Raises:
        GeomoeError: if it is none of these, or cannot be used.
    """
    local = local_file(path)
    product = None
    if local.is_dir() or local.name in METADATA or local.suffix.lower() == ".zip":
        opened = open_safe(local.parent if local.name in METADATA else local, bands)
    elif local.suffix.lower() in (".json", ".geojson"):
        opened = open_item(local, bands)
    elif local.suffix.lower() == ".npz":
        opened = open_cube(local)
    else:
        opened = open_file(Path(path))
        product = product_around(local)
    with opened as scene:
        if product is not None:
            scene = replace(scene, notes=(_ALONE.format(product=product),))
        yield scene if nodata is None else scene.said(None if nodata == "none" else nodata)


def source_files(path: str | os.PathLike[str]) -> list[Path]:
    """What may be read of a scene, whatever is selected of it: files, and the folder of a product.

    Also of a scene that `open_scene` would refuse.
    """
    local = Path(os.path.abspath(path))
    if local.name in METADATA:
        return [local.parent]
    if local.suffix.lower() not in (".json", ".geojson"):
        return [local]
    with suppress(GeomoeError, OSError, ValueError):
        return [local, *asset_files(local)]
    return [local]


_ALONE = (
    "a band of a Sentinel-2 product by itself, without the invalid value and the offset that the product "
    "knows of; give {product}, and its name as one of the bands"
)
