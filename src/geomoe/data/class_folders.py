"""Data sets of images with a label: a folder for each class.

UC Merced and AID have their own splits; of all others every k-th image of each class is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geomoe.data import aid, ucmerced
from geomoe.data.images import IMAGE_SUFFIXES, find_images
from geomoe.data.split import every_of_each
from geomoe.data.ucmerced import Split
from geomoe.errors import GeomoeError

__all__ = [
    "CLASS_FOLDERS",
    "ClassFolders",
    "Labelled",
    "class_names",
    "find_class_folders",
    "labelled_files",
    "register_class_folders",
]

HELD_OUT, VALIDATION = 0.2, 0.05
"""Shares of each class that are tested on, and of the rest that are validated on."""


@dataclass(frozen=True)
class ClassFolders:
    """A data set whose images lie in a folder for each class.

    Attributes:
        name: as cards call it.
        source: what the images are, with source and terms.
        find: the folder of the classes below a folder that a user gave; None where it is another data set.
        files: images of a part; None for every k-th image of each class.
        sensor: that took them; None where it is not one alone, or not known.
        gsd: ground sampling distance of the images, metres; None where it is not one alone.
    """

    name: str
    source: str
    find: Callable[[Path], Path | None]
    files: Callable[[Path, Split], list[Path]] | None = None
    sensor: str | None = None
    gsd: float | None = None


CLASS_FOLDERS: dict[str, ClassFolders] = {}
"""All that are known, by name."""


def register_class_folders(found: ClassFolders) -> None:
    """Add a data set; a folder is the first one that finds itself in it."""
    CLASS_FOLDERS[found.name] = found


def _below(names: Sequence[str], some_classes: Sequence[str]) -> Callable[[Path], Path | None]:
    """Finds the folder that holds ``some_classes``: one of ``names`` below the given folder, or itself."""

    def find(root: Path) -> Path | None:
        for folder in (*(root / name for name in names), root):
            if all((folder / name).is_dir() for name in some_classes):
                return folder
        return None

    return find


register_class_folders(
    ClassFolders(
        "ucmerced", ucmerced.SOURCE, ucmerced.ucmerced_folder, ucmerced.ucmerced_files, "aerial", 0.3
    )
)
register_class_folders(ClassFolders("aid", aid.SOURCE, aid.aid_folder, aid.aid_files))
register_class_folders(
    ClassFolders(
        "eurosat",
        "EuroSAT (Helber et al. 2019), RGB; MIT; contains modified Copernicus Sentinel data",
        _below(("EuroSAT_RGB", "EuroSAT/2750", "2750"), ("AnnualCrop", "HerbaceousVegetation", "SeaLake")),
        sensor="sentinel-2",
        gsd=10.0,
    )
)
register_class_folders(
    ClassFolders(
        "resisc45",
        "NWPU-RESISC45 (Cheng et al. 2017), images of Google Earth; see its publishers' terms",
        _below(("NWPU-RESISC45",), ("airplane", "roundabout", "thermal_power_station")),
    )
)
_ANY = ClassFolders("class_folders", "", lambda root: root)


def find_class_folders(root: Path) -> ClassFolders:
    """The data set that ``root`` is; ``class_folders`` where it is none that is known."""
    return next((one for one in CLASS_FOLDERS.values() if one.find(root) is not None), _ANY)


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
    folder = find_class_folders(root).find(root)
    assert folder is not None
    return folder


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


@dataclass(frozen=True)
class Labelled:
    """An image of a known class, by its path and its name below the folder of the classes."""

    path: Path
    name: str
    label: str


def labelled_files(root: Path, part: Split) -> list[Labelled]:
    """The images of a part with their classes.

    What is held out is ``test``, the rest ``train``, which is cut into ``fit`` and ``validation``.

    Raises:
        GeomoeError: not folders of classes, or files missing from a data set with a split of its own.
    """
    class_names(root)  # raises
    folder, files = _classes(root), find_class_folders(root).files
    if files is not None:
        paths = files(root, part)
    else:
        train, test = every_of_each(find_images(folder), HELD_OUT)
        fit, validation = every_of_each(train, VALIDATION)
        paths = {"train": train, "test": test, "fit": fit, "validation": validation}[part]
    named = ((path, path.relative_to(folder)) for path in paths)
    return [Labelled(path, name.as_posix(), name.parts[0]) for path, name in named]
