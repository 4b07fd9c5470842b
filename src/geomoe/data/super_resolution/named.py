"""Images whose truth is known, by name: downsampled one by one, or measured by two sensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from geomoe.data.datasets import DATA_SETS
from geomoe.data.images import find_images, read_image, sift
from geomoe.data.sample import Lazy, Sample
from geomoe.data.split import Split
from geomoe.data.super_resolution.degradation import REAL, Degrader, get_degradation
from geomoe.data.super_resolution.layouts import REAL_LAYOUTS, SPLIT_LAYOUTS, find_layout, real_pairs
from geomoe.data.super_resolution.pairs import degrade
from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.known import Known

__all__ = ["MadeSmall", "named_images"]


def named_images(
    root: Path,
    part: Split,
    degradation: str,
    *,
    scale: int,
    bands: int,
    stretch: bool = True,
    informed: bool = False,
    skip: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Lazy:
    """Samples with ``image`` and ``target``, uint8 or float32 in about [0, 1], read one by one.

    Args:
        root: of images, or of pairs that were measured.
        part: of a data set that has such; of other images every part is all of them.
        degradation: a name of docs/degradations.md, by which :class:`MadeSmall` makes the inputs; or
            ``real``, where they were measured.
        scale: of the target's pixel grid over that of the image.
        bands: of both.
        stretch: whether values of measured pairs are those of scenes; else reflectance.
        informed: whether samples have a ``known``.
        skip: whether images that cannot be read are left out.
        say: called with a line that says what is left out, and how scenes of two folders were matched.

    Raises:
        GeomoeError: nothing of the kind, images that cannot be read, or an unknown degradation.
    """
    if degradation == REAL:
        return _measured(root, part, scale, bands, stretch, informed, skip, say)
    return MadeSmall(root, part, get_degradation(degradation), scale, bands, informed, skip, say)


class MadeSmall(Lazy):
    """Images with what they are downsampled to, each always alike; arguments as of :func:`named_images`.

    Attributes:
        split: the part, of a data set that has such.
        left_out: how many images cannot be read.
    """

    def __init__(
        self,
        root: Path,
        part: Split,
        degradation: Degrader,
        scale: int,
        bands: int,
        informed: bool,
        skip: bool,
        say: Callable[[str], None],
    ) -> None:
        layout = find_layout(root)
        if layout in REAL_LAYOUTS:
            raise GeomoeError(
                f"{root} holds pairs that were measured ({layout}), of which both images, and those to train "
                "on, would be downsampled; score them with degradation 'real', or give the folder of one "
                "resolution"
            )
        files, data_set = SPLIT_LAYOUTS.get(layout), DATA_SETS.get(layout)
        self.split = None if files is None else part
        self._root = root
        self._degradation, self._scale, self._bands, self._informed = degradation, scale, bands, informed
        self._paths = find_images(root) if files is None else files(root, part)
        self._of_all = Known() if data_set is None else Known(data_set.sensor, data_set.gsd)
        # All are looked at before the first is scored: an hour may lie between.
        found = sift(self._paths, lambda path: len(read_image(path, bands)), skip, say)
        usable = {path for path, _ in found}
        self.left_out = len(self._paths) - len(usable)
        places = [place for place, path in enumerate(self._paths) if path in usable]
        super().__init__(self._sample, places)

    def _sample(self, place: int) -> tuple[str, Sample]:
        drawn = self._degradation.drawn(place)
        image = read_image(self._paths[place], self._bands)
        low, high = degrade(image, self._scale, drawn)
        sample = {"image": low, "target": high}
        if self._informed:
            sample["known"] = torch.tensor(drawn.known(self._of_all).encoded())
        return self._paths[place].relative_to(self._root).as_posix(), sample

    def degrader(self, index: int) -> Degrader:
        """What made the small image of a sample."""
        return self._degradation.drawn(self.places[index])


def _measured(
    root: Path, part: Split, scale: int, bands: int, stretch: bool, informed: bool, skip: bool,
    say: Callable[[str], None],
) -> Lazy:  # fmt: skip
    layout = find_layout(root)
    if layout not in REAL_LAYOUTS:
        raise GeomoeError(
            f"{root} holds no pairs that were measured ({', '.join(REAL_LAYOUTS)}), which degradation 'real' "
            "scores; give their folder, or the name of a degradation"
        )
    if part == "train":
        raise GeomoeError("measured pairs are scored on the split fit, validation or test")
    pairs = real_pairs(layout, root, part, scale=scale, bands=bands, stretch=stretch, skip=skip, say=say)
    nothing = {"known": torch.tensor(Known().encoded())} if informed else {}

    def read(place: int) -> tuple[str, Sample]:
        low, high = pairs[place]
        return f"pair {place}", {"image": low, "target": high, **nothing}

    return Lazy(read, range(len(pairs)))
