"""Crowns of IDTReeS as images of single trees, a folder for each taxon: a long tail that nobody made.

A crown's image is a square of its plot's image ``rgb/PLOT.tif``, 10 cm a pixel, as large as the longer side
of the crown's box and around its middle; one that would reach beyond the plot is moved inwards, so that
nothing is made up and no crown is lost. It is brought to 64 x 64 pixels, whatever the size of the crown.

Which crowns are tested on is said by the names of files: ``Quercus alba/test_crown_0012_MLBS_1.png``. Plots
that lie together are of one part, so that nothing of an image that is tested on was trained on. Of many draws
of three tenths of the stands that one is taken which leaves most taxa with two crowns or more in both parts;
among equals, the one whose taxa have a share next to three tenths. Taxa that have fewer are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geomoe.data.idtrees import Crown, read_crowns, read_photograph, stands_of
from geomoe.data.split import Split, parts_by_name
from geomoe.errors import GeomoeError
from geomoe.files import new_folder
from geomoe.printable import counted

__all__ = ["crowns_files", "crowns_folder", "held_out_stands", "make_crowns"]

_SIDE = 64
_TEST, _VALIDATION, _LEAST = 0.3, 0.05, 2
_DRAWS = 2000


def crowns_folder(root: Path) -> Path | None:
    """The folder that holds crowns as images, ``root`` itself; None where it does not."""
    return root if next(root.glob("*/train_crown_*.png"), None) is not None else None


def crowns_files(root: Path, split: Split) -> list[Path]:
    """Paths of a split below the folder of the taxa; ``validation`` is every 20th of each in ``train``."""
    return parts_by_name(sorted(root.glob("*/*_crown_*.png")), split, _VALIDATION)


def held_out_stands(counts: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.bool_]:
    """``[stands]``, those that are tested on.

    Args:
        counts: ``[stands, taxa]``, numbers of crowns; every taxon has one.
        rng: draws them.
    """
    wanted = np.arange(len(counts)) < round(_TEST * len(counts))
    draws = rng.permuted(np.tile(wanted, (_DRAWS, 1)), axis=1)
    test, total = draws.astype(int) @ counts, counts.sum(0)  # [draws, taxa], [taxa]
    kept = (np.minimum(test, total - test) >= _LEAST).sum(1)
    off = np.abs(test / total - _TEST).sum(1)
    best: NDArray[np.bool_] = draws[np.lexsort((off, -kept))[0]]
    return best


def make_crowns(folder: Path, root: Path, seed: int = 0) -> str:
    """Write the crowns of IDTReeS into a new folder, as RGB images of 64 x 64 pixels.

    Args:
        folder: that is made, with a folder below it for each taxon; it is there when all of it is.
        root: folder of IDTReeS, with ``crowns.csv`` and ``rgb``.
        seed: of the draw of the stands that are tested on.

    Returns:
        How many there are, and what was left out, in words.

    Raises:
        GeomoeError: something is there already, files that cannot be used, fewer than two taxa with crowns
            enough, or that it cannot be written.
    """
    read = read_crowns(root)
    crowns = [crown for crown in read if crown.name]
    if len({crown.name for crown in crowns}) < 2:
        raise GeomoeError(f"{root} has fewer than two taxa of crowns")
    sites = {crown.plot: crown.site for crown in crowns}
    plots = {plot: _Plot(root / "rgb" / f"{plot}.tif") for plot in sorted(sites)}
    stands = stands_of([sites[plot] for plot in plots], [plot.corners for plot in plots.values()])
    stand_of = dict(zip(plots, stands, strict=True))
    taxa, taxon = np.unique([crown.name for crown in crowns], return_inverse=True)
    _, stand = np.unique([stand_of[crown.plot] for crown in crowns], return_inverse=True)
    counts = np.zeros((stand.max() + 1, len(taxa)), int)
    np.add.at(counts, (stand, taxon), 1)
    tested = held_out_stands(counts, np.random.default_rng(seed))
    few = np.minimum(counts[tested].sum(0), counts[~tested].sum(0)) < _LEAST
    if len(taxa) - few.sum() < 2:
        raise GeomoeError(f"{root} has fewer than two taxa with {_LEAST} crowns for each part")
    number = {"train": 0, "test": 0}
    with new_folder(folder) as made:
        for i, crown in enumerate(crowns):
            if few[taxon[i]]:
                continue
            half = "test" if tested[stand[i]] else "train"
            number[half] += 1
            place = made / _plain(crown.name)
            place.mkdir(exist_ok=True)
            image = plots[crown.plot].square(crown)
            image.save(place / f"{half}_crown_{i:04}_{_plain(crown.plot)}.png")
    left = [f"{name} ({total})" for name, total in zip(taxa[few], counts.sum(0)[few], strict=True)]
    return (
        f"{len(taxa) - few.sum()} taxa, {number['train']} crowns to train on, {number['test']} to test on; "
        f"left out, with fewer than {_LEAST} to train or to test on: {', '.join(left) or 'none'}; "
        f"and {counted(len(read) - len(crowns), 'crown')} of no taxon"
    )


def _plain(name: str) -> str:
    """Without what names of folders may not hold, such as the dot of ``Magnolia sp.``."""
    return re.sub(r"[^\w -]", "", name)


class _Plot:
    """The image of a plot, and where it lies."""

    def __init__(self, path: Path) -> None:
        image, stack = read_photograph(path)
        assert stack.box is not None
        west, south, east, north, self.pixel = stack.box
        self.path, self.corners = path, (west, south, east, north)
        self.image = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))

    def square(self, crown: Crown) -> Image.Image:
        """Of a crown, all of it within the plot."""
        left, top, right, bottom = (edge / self.pixel for edge in crown.box)
        size = self.image.size
        if not (0 <= left + right <= 2 * size[0] and 0 <= top + bottom <= 2 * size[1]):
            raise GeomoeError(f"{self.path}: a crown of {crown.individual} has its middle outside of it")
        side = min(max(right - left, bottom - top), *size)
        x, y = (
            min(max((low + high - side) / 2, 0), most - side)
            for low, high, most in ((left, right, size[0]), (top, bottom, size[1]))
        )
        return self.image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, (x, y, x + side, y + side))
