"""Data sets of images with a label: a folder for each class.

UC Merced and AID have their own splits; of all others every k-th image of each class is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geomoe.data.datasets import find_data_set
from geomoe.data.images import IMAGE_SUFFIXES, find_images
from geomoe.data.split import Part, Split, every_of_each
from geomoe.errors import GeomoeError

__all__ = ["Labelled", "class_names", "labelled_files"]

HELD_OUT, VALIDATION = 0.2, 0.05
"""Shares of each class that are tested on, and of the rest that are validated on."""


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the classes below ``root``, sorted: of the folders that hold images.

    Raises:
        GeomoeError: no folder, fewer than two classes, or images that lie beside their folders.
    """
    folder = _classes(root)
    if not folder.is_dir():
        raise GeomoeError(f"{folder} is not a folder; give the folder that holds one for each class")
    if stray := [path for path in sorted(folder.iterdir()) if _is_image(path)]:
        raise GeomoeError(f"{stray[0]} lies in no folder of a class; move it into one")
    names = tuple(sorted({path.relative_to(folder).parts[0] for path in find_images(folder)}))
    if len(names) < 2:
        raise GeomoeError(
            f"{folder} holds images of one class, {names[0]}; expected a folder for each of two"
        )
    return names


def _classes(root: Path) -> Path:
    known = find_data_set(root, "labels")
    return (known and known.find(root)) or root


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


@dataclass(frozen=True)
class Labelled:
    """An image of a known class, by its path and its name below the folder of the classes."""

    path: Path
    name: str
    label: str


def labelled_files(
    root: Path, part: Split, deal: Callable[[Sequence[str]], list[Part]] | None = None
) -> list[Labelled]:
    """The images of a part with their classes.

    What is held out is ``test``, the rest ``train``, which is cut into ``fit`` and ``validation``.

    Args:
        root: of the data set, or of the folders of classes.
        part: of the images.
        deal: gives images their parts, by their folders; by default the published split, or every k-th.

    Raises:
        GeomoeError: not folders of classes, or files missing from a data set with a split of its own.
    """
    class_names(root)  # raises
    folder, known = _classes(root), find_data_set(root, "labels")
    if deal is not None:
        found = find_images(folder)
        parts = deal([path.parent.name for path in found])
        wanted = ("fit", "validation") if part == "train" else (part,)
        paths = [path for path, mine in zip(found, parts, strict=True) if mine in wanted]
    elif known is not None and known.files is not None:
        paths = known.files(root, part)
    else:
        train, test = every_of_each(find_images(folder), HELD_OUT)
        fit, validation = every_of_each(train, VALIDATION)
        paths = {"train": train, "test": test, "fit": fit, "validation": validation}[part]
    named = ((path, path.relative_to(folder)) for path in paths)
    return [Labelled(path, name.as_posix(), name.parts[0]) for path, name in named]
