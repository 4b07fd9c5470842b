"""Reading images: PNG, JPEG, TIFF and GeoTIFF as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["IMAGE_SUFFIXES", "find_images", "read_image", "to_unit"]

_GDAL_NODATA = 42113  # TIFF tag
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp")


def find_images(root: Path) -> list[Path]:
    """All image files below ``root``, sorted; raises GeomoeError where there are none."""
    if not root.is_dir():
        raise GeomoeError(f"{root} is not a folder; give the folder that holds the images")
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise GeomoeError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return found


def read_image(path: Path, bands: int = 3) -> Tensor:
    """One image as ``[bands, H, W]``.

    8-bit images come as uint8, as RGB for 3 bands and as luma for 1. Anything else (16-bit, float, more
    bands, a raster that declares nodata) is read as a GeoTIFF and comes as float32 in about [0, 1], as
    :mod:`geomoe.raster` gives it to models at inference, with invalid pixels filled; its first ``bands``
    bands are taken.

    Raises:
        GeomoeError: no image, or too few bands.
    """
    try:
        with Image.open(path) as image:
            declares_nodata = _GDAL_NODATA in getattr(image, "tag_v2", ())
            if image.mode in ("RGB", "L", "RGBA", "P") and bands in (1, 3) and not declares_nodata:
                array = np.asarray(image.convert("L" if bands == 1 else "RGB"))
                return torch.from_numpy(array.reshape(*array.shape[:2], bands).copy()).permute(2, 0, 1)
    except UnidentifiedImageError:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise GeomoeError(f"{path} is not an image that can be read") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise GeomoeError(f"{path} cannot be read: {error}") from error
    return _read_geotiff(path, bands)


def _read_geotiff(path: Path, bands: int) -> Tensor:
    from geomoe.raster.training import read_scaled  # rasterio is wanted for these files alone

    array = read_scaled(path, bands)
    return torch.from_numpy(array)


def to_unit(x: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; float32 as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()
