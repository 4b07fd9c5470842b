"""UC Merced Land Use (Yang and Newsam 2010): 21 classes of 100 aerial RGB images, 0.3 m.

The layout is the original archive's: ``UCMerced_LandUse/Images/<class>/<class>NN.tif``. 44 images
are not 256x256; they are cut to a multiple of the scale, never stretched.

The 75/25 split carried here is drawn in each class, in sorted order of the classes, by
``numpy.random.default_rng(0).permutation(100)``, the first 25 to test.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from geomoe.data.split import Split
from geomoe.errors import GeomoeError

__all__ = ["ucmerced_files", "ucmerced_folder", "ucmerced_split"]

_VALIDATION_PER_CLASS = 3


def ucmerced_split(split: Split) -> list[str]:
    """Names ``<class>/<file>`` of a split.

    ``train`` (1575) and ``test`` (525) are the published kind of split. ``train`` is cut into
    ``fit`` (1512) and ``validation`` (63, the last three of each class), so that a checkpoint can
    be chosen without looking at the test images.
    """
    name = "test" if split == "test" else "train"
    names = (files("geomoe.data") / "splits" / f"ucmerced_{name}.txt").read_text().split()
    if split in ("train", "test"):
        return names
    by_class: dict[str, list[str]] = {}
    for entry in names:
        by_class.setdefault(entry.split("/")[0], []).append(entry)
    cut = slice(-_VALIDATION_PER_CLASS, None) if split == "validation" else slice(-_VALIDATION_PER_CLASS)
    return [entry for entries in by_class.values() for entry in entries[cut]]


def ucmerced_folder(root: Path) -> Path | None:
    """The folder of the classes: ``root``, its ``Images``, or its ``UCMerced_LandUse/Images``."""
    for images in (root / "UCMerced_LandUse" / "Images", root / "Images", root):
        if (images / "agricultural").is_dir():
            return images
    return None


def ucmerced_files(root: Path, split: Split) -> list[Path]:
    """Paths of a split under ``root``: the archive's folder, the one above it, or its ``Images``.

    Raises:
        GeomoeError: not the layout, or files missing.
    """
    images = ucmerced_folder(root)
    if images is None:
        raise GeomoeError(
            f"{root} holds no UCMerced_LandUse/Images/<class>; give the unpacked archive's folder"
        )
    paths = [images / name for name in ucmerced_split(split)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise GeomoeError(
            f"{len(missing)} of {len(paths)} images of UCMerced are missing, first {missing[0]}"
        )
    return paths
