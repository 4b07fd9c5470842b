"""Reading images: PNG, JPEG, TIFF and GeoTIFF as tensors."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = [
    "IMAGE_SUFFIXES", "MAX_PIXELS", "Picture", "find_images", "notes_on", "read_image", "read_picture",
    "sift", "to_unit",
]  # fmt: skip

# Pillow logs an error for each TIFF of more bands than it knows, which are read otherwise here.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_GDAL_NODATA = 42113  # TIFF tag
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TIFF = (".tif", ".tiff")
MAX_PIXELS = 2**26
"""Of an image that is held in memory whole: 8192 x 8192. A file of some kilobytes may claim many more."""
_EIGHT_BITS = ("RGB", "L", "RGBA", "LA", "P", "PA")

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Picture:
    """An image in memory.

    Attributes:
        data: ``[bands, H, W]``; uint8, or float32 in about [0, 1].
        valid: ``[H, W]`` bool, where there is a measurement; ``None`` if there is one everywhere. Elsewhere
            ``data`` is filled in, or what lies under a transparent pixel.
        note: which bands were left out, or made of others, in words; may be empty.
        names: of the bands, as scenes call them; empty where they have none.
        dtype: of the file.
    """

    data: Tensor
    valid: NDArray[np.bool_] | None = None
    note: str = ""
    names: tuple[str, ...] = ()
    dtype: str = "uint8"


def find_images(root: Path) -> list[Path]:
    """All image files below ``root``, sorted; raises GeomoeError where there are none."""
    if not root.is_dir():
        raise GeomoeError(f"{root} is not a folder; give the folder that holds the images")
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise GeomoeError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return found


def read_image(path: Path, bands: int = 3) -> Tensor:
    """The data of :func:`read_picture`."""
    return read_picture(path, bands).data


def read_picture(
    path: Path, bands: int = 3, names: str | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """One image.

    8-bit images come as uint8, as RGB for 3 bands and as luma for 1. Anything else in a TIFF (16-bit, float,
    more bands, a raster that declares nodata) is read as a GeoTIFF and comes as float32 in about [0, 1], as
    :mod:`geomoe.raster` gives it to models at inference, with invalid pixels filled; of more bands than are
    wanted, :func:`geomoe.raster.read.bands.learning_bands` takes some.

    Args:
        path: of the file.
        bands: how many are wanted.
        names: of these bands, as ``--bands`` has them, for GeoTIFFs alone.
        max_pixels: that the image may have; it is looked at before any is decoded.

    Raises:
        GeomoeError: no image, another kind of one, too large, or too few bands.
    """
    tiff = path.suffix.lower() in _TIFF
    if names is not None and not tiff:
        raise GeomoeError(f"{path.name} has no names of bands; give their number, or GeoTIFFs")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours comes first
            image = Image.open(path)
        with image:
            if image.width * image.height > max_pixels:
                raise _too_large(path, image.width, image.height, max_pixels)
            plain = image.mode in _EIGHT_BITS and bands in (1, 3) and names is None
            if plain and _GDAL_NODATA not in getattr(image, "tag_v2", ()) and _eight_bits(path):
                return _plain(image, bands)
            kind = image.mode
    except UnidentifiedImageError:
        if not tiff:
            raise GeomoeError(f"{path} is not an image that can be read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GeomoeError(f"{path} cannot be read: {error}") from error
    if not tiff:
        raise GeomoeError(f"{path} {_wrong_kind(path, kind, bands)}")
    from geomoe.data.rasters import read_scaled  # rasterio is wanted for these files alone

    data, valid, left, called, dtype = read_scaled(path, bands, names, max_pixels)
    return Picture(torch.from_numpy(data), None if valid.all() else valid, left or "", called, dtype)


def _too_large(path: Path, width: int, height: int, most: int) -> GeomoeError:
    return GeomoeError(
        f"{path} has {width} x {height} pixels, more than the {most:,} that one held in memory may have; cut "
        "it into pieces"
    )


def _wrong_kind(path: Path, kind: str, bands: int) -> str:
    if bands not in (1, 3):
        return f"is no GeoTIFF, of which alone {bands} bands are read; choose --data.bands 3 or 1"
    if kind.startswith("I") or not _eight_bits(path):
        into = f"gdal_translate {path.name} {path.stem}.tif"
        return f"has 16 bits a band, of which 8 would be read; convert it to a GeoTIFF: {into}"
    return f"is an image of the kind {kind}; expected grey or RGB of 8 bits, convert it"


def _eight_bits(path: Path) -> bool:
    """Whether a file is no PNG of 16 bits, which Pillow opens as one of 8 if it has colours."""
    with path.open("rb") as file:
        head = file.read(26)
    return not head.startswith(b"\x89PNG") or head[24:25] != b"\x10"


def _plain(image: Image.Image, bands: int) -> Picture:
    valid = None
    if image.has_transparency_data:
        seen = np.asarray(image.convert("RGBA").getchannel("A")) > 0
        valid = None if seen.all() else seen
    array = np.asarray(image.convert("L" if bands == 1 else "RGB"))
    data = torch.from_numpy(array.reshape(*array.shape[:2], bands).copy()).permute(2, 0, 1)
    grey = image.mode in ("L", "LA")
    note = "" if grey == (bands == 1) else "one band, taken three times" if grey else "colours, taken as luma"
    return Picture(data, valid, note, ("red", "green", "blue") if bands == 3 and not grey else ())


def sift(
    things: Iterable[T], read: Callable[[T], S], skip: bool, say: Callable[[str], None]
) -> list[tuple[T, S]]:
    """All of ``things`` that can be read, each with what was read.

    Args:
        things: files, or pairs of files.
        read: reads one, or raises a GeomoeError that names it.
        skip: whether those that cannot be read are left out, and reported.
        say: called with a line about them.

    Raises:
        GeomoeError: some cannot be read and are not to be skipped, or none can; it names all.
    """
    found: list[tuple[T, S]] = []
    wrong: list[str] = []
    for thing in things:
        try:
            found.append((thing, read(thing)))
        except GeomoeError as error:
            wrong.append(str(error))
    if not wrong:
        return found
    if len(wrong) == 1 and not found:
        raise GeomoeError(wrong[0])
    what = f"{len(wrong)} of {len(wrong) + len(found)} cannot be used: {' | '.join(wrong)}"
    if not skip or not found:
        raise GeomoeError(f"{what}; repair or remove them, or leave them out by --skip-corrupt")
    say(f"left out, {what}")
    return found


def notes_on(pictures: Mapping[Path, Picture]) -> list[str]:
    """What is to be said of pictures that were read, each kind of remark in a line."""
    of: dict[str, list[Path]] = defaultdict(list)
    for path, picture in pictures.items():
        if picture.note:
            of[picture.note].append(path)
        if picture.valid is not None:
            of["there are transparent or invalid pixels; whole patches without any are taken"].append(path)
    return [
        f"{len(paths)} of {len(pictures)} images, first {paths[0].name}: {note}" for note, paths in of.items()
    ]


def to_unit(x: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; float32 as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()
