"""AID (Xia et al. 2017): 10,000 aerial RGB images of 600x600 pixels in 30 classes, 0.5 to 8 m.

The layout is the original archive's: ``AID/<Class>/<class>_N.jpg``. The images are JPEGs from Google Earth.

No split is published; the one here is drawn in each class, in sorted order of the classes, by one
``numpy.random.default_rng(0)``: ``permutation(n)`` of the class's names in sorted order, the first fifth to
test. It depends on how many images each class has, so a copy that lacks some is refused.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from geomoe.data.split import Split
from geomoe.errors import GeomoeError

__all__ = ["AID_CLASSES", "aid_files", "aid_folder"]

AID_CLASSES = {
    "Airport": 360, "BareLand": 310, "BaseballField": 220, "Beach": 400, "Bridge": 360, "Center": 260,
    "Church": 240, "Commercial": 350, "DenseResidential": 410, "Desert": 300, "Farmland": 370, "Forest": 250,
    "Industrial": 390, "Meadow": 280, "MediumResidential": 290, "Mountain": 340, "Park": 350, "Parking": 390,
    "Playground": 370, "Pond": 420, "Port": 380, "RailwayStation": 260, "Resort": 290, "River": 410,
    "School": 300, "SparseResidential": 300, "Square": 330, "Stadium": 290, "StorageTanks": 360,
    "Viaduct": 420,
}  # fmt: skip
"""Images of each class, as the paper has them; 10,000 in all."""

_VALIDATION_PER_CLASS = 3


@cache
def _drawn() -> dict[str, frozenset[int]]:
    """Which places in a class's sorted names are test images."""
    rng = np.random.default_rng(0)
    return {name: frozenset(rng.permutation(n)[: n // 5].tolist()) for name, n in sorted(AID_CLASSES.items())}


def aid_folder(root: Path) -> Path | None:
    """The folder of the classes: ``root``, its ``AID``, or its ``AID_dataset/AID``."""
    for folder in (root / "AID_dataset" / "AID", root / "AID", root):
        if (folder / "BareLand").is_dir() and (folder / "StorageTanks").is_dir():
            return folder
    return None


def aid_files(root: Path, split: Split) -> list[Path]:
    """Paths of a split under ``root``: the archive's folder or the one above it.

    ``train`` has 8,000 images and ``test`` 2,000. ``train`` is cut into ``fit`` (7,910) and ``validation``
    (90, the last three of each class), so that a checkpoint can be chosen without looking at the test images.

    Raises:
        GeomoeError: not the layout, or images missing.
    """
    folder = aid_folder(root)
    if folder is None:
        raise GeomoeError(f"{root} holds no AID/<Class>/*.jpg; give the unpacked archive's folder")
    return [path for name in sorted(AID_CLASSES) for path in _of_class(folder / name, split)]


def _of_class(folder: Path, split: Split) -> list[Path]:
    found = sorted(path for path in folder.glob("*.jpg") if path.is_file())
    expected = AID_CLASSES[folder.name]
    if len(found) != expected:
        raise GeomoeError(f"{folder} holds {len(found)} images (*.jpg) of the {expected} that AID has there")
    test = _drawn()[folder.name]
    if split == "test":
        return [path for i, path in enumerate(found) if i in test]
    train = [path for i, path in enumerate(found) if i not in test]
    cut = {"train": slice(None), "fit": slice(-_VALIDATION_PER_CLASS)}
    return train[cut.get(split, slice(-_VALIDATION_PER_CLASS, None))]
