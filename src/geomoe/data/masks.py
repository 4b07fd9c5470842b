"""Folders of images with masks: for each image another one, of the same name, whose values are classes.

Masks lie in a folder of their own, under the names that the images have in theirs; or beside the images, as
``NAME_mask.png``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from geomoe.data.images import IMAGE_SUFFIXES, MAX_PIXELS, find_images
from geomoe.errors import GeomoeError
from geomoe.printable import counted

__all__ = ["Masked", "masked_files", "read_mask"]

_MARK = "_mask"
_WHOLE = ("L", "P", "I;16", "1")
"""Modes of images whose pixels are one whole number each."""


@dataclass(frozen=True)
class Masked:
    """An image and its mask.

    Attributes:
        image: its path.
        mask: the mask's.
        name: of the image below the folder that was given.
    """

    image: Path
    mask: Path
    name: str

    @property
    def folder(self) -> str:
        """In which the image lies; empty where that is the one that was given."""
        return "/".join(self.name.split("/")[:-1])


def masked_files(root: Path, images: str = "images", masks: str = "masks") -> list[Masked]:
    """Images with their masks, sorted.

    Args:
        root: of the data set.
        images: folder of the images below ``root``, if they lie apart from the masks.
        masks: folder of the masks.

    Raises:
        GeomoeError: images without masks, masks without images, or none at all.
    """
    if (root / masks).is_dir() and (root / images).is_dir():
        pairs = _in_two_folders(root / images, root / masks)
    else:
        pairs = _side_by_side(root)
    if not pairs:
        raise GeomoeError(
            f"{root} holds no images with masks; expected folders {images} and {masks} with files of the "
            f"same names, or NAME{_MARK}.png beside each image"
        )
    return pairs


def _in_two_folders(images: Path, masks: Path) -> list[Masked]:
    there = {path.relative_to(masks).with_suffix(""): path for path in find_images(masks)}
    found = {path.relative_to(images).with_suffix(""): path for path in find_images(images)}
    for one, other, of, what in ((found, there, images, "mask"), (there, found, masks, "image")):
        if alone := sorted(set(one) - set(other)):
            some = counted(len(alone), "file")
            raise GeomoeError(f"{some} of {of} without {what}, first {one[alone[0]].name}")
    return [
        Masked(found[key], there[key], found[key].relative_to(images).as_posix()) for key in sorted(found)
    ]


def _side_by_side(root: Path) -> list[Masked]:
    every = find_images(root)
    marked = {
        path.with_name(path.stem.removesuffix(_MARK)): path for path in every if path.stem.endswith(_MARK)
    }
    images = {path.with_suffix(""): path for path in every if not path.stem.endswith(_MARK)}
    if marked and (alone := sorted(set(images) ^ set(marked))):
        missing = "mask" if alone[0] in images else "image"
        raise GeomoeError(f"{counted(len(alone), 'file')} of {root} without {missing}, first {alone[0].name}")
    return [
        Masked(images[key], path, images[key].relative_to(root).as_posix())
        for key, path in sorted(marked.items())
    ]


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.integer]:
    """``[H, W]``, a class's value for each pixel; the indices of a palette, not its colours.

    Raises:
        GeomoeError: no image of one band of whole numbers, or too large a one.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise GeomoeError(f"{path} is not an image; a mask ends in {', '.join(IMAGE_SUFFIXES)}")
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        raise GeomoeError(f"{path} is compressed with loss, which blurs classes; expected a PNG or TIFF")
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise GeomoeError(
                    f"{path} has {image.width} x {image.height} pixels, more than {max_pixels:,}"
                )
            if image.mode not in _WHOLE:
                raise GeomoeError(
                    f"{path} is an image of the kind {image.mode}; expected one band of whole numbers"
                )
            return np.asarray(image.convert("L") if image.mode == "1" else image).astype(np.int32)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GeomoeError(f"{path} cannot be read: {error}") from error
