"""Which scenes of two folders show the same: by name, then by place, then by date; never by guessing."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.printable import counted

if TYPE_CHECKING:
    from geomoe.data.super_resolution.raster_pairs import Footprint, PairOfScenes

__all__ = ["Matches", "match"]

_RESOLUTION = re.compile(r"(?<![^\W_])(lr|hr|low|high)(?![^\W_])")
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")
_SAME_PLACE = 0.5
"""Two areas whose common part is more than this share of both together show one place, not neighbours."""

_Found = dict[tuple[int, int], "PairOfScenes"]
"""By the numbers of its scenes in both folders."""


@dataclass(frozen=True)
class Matches:
    """What was found.

    Attributes:
        pairs: a list for each low-resolution scene that has a counterpart, in their order.
        by: how many pairs were told by ``name``, ``place``, ``date``.
        alone: scenes without a counterpart.
    """

    pairs: list[list[PairOfScenes]]
    by: Counter[str]
    alone: list[Path]

    def __str__(self) -> str:
        ways = ", ".join(f"{count} by {way}" for way, count in self.by.items())
        shown = ", ".join(f"{path.parent.name}/{path.name}" for path in self.alone[:5])
        more = f" and {len(self.alone) - 5} more" if len(self.alone) > 5 else ""
        some = counted(len(self.alone), "scene")
        left = f"; {some} without a counterpart: {shown}{more}" if self.alone else ""
        return f"pairs of scenes that were matched: {ways}{left}"


def match(
    low: Sequence[Footprint],
    high: Sequence[Footprint],
    folders: tuple[Path, Path],
    area: Callable[[Footprint, Footprint], PairOfScenes | None],
) -> Matches:
    """Scenes that overlap and have the same name; of the others those of one place, of one day if need be.

    Names are paths below the folders without their ending, in any case, and without ``lr``, ``hr``, ``low``
    and ``high`` as words of their own; or the names of the files alone, where only one is called so. The day
    is the one that a scene says it was taken on, or the first one in its path.

    Args:
        low: the scenes of low resolution.
        high: those of high resolution.
        folders: in which they lie.
        area: what two scenes share; ``None`` where it is less than a pixel.

    Raises:
        GeomoeError: scenes of one place between which neither names nor days decide; those of ``area``.
    """
    found = _by_name(low, high, folders, area)
    by = Counter({"name": len(found)} if found else {})
    rest = [_without(scenes, found, side) for side, scenes in enumerate((low, high))]
    near = {
        (i, j): pair for i, j in _overlapping(low, high, *rest) if (pair := area(low[i], high[j])) is not None
    }
    by_day = _keep_days(near, lambda i, j: _same_day(low[i], high[j], folders))
    for one, other in _rivals(near):
        what = {path for each in (one, other) for path in (near[each].low, near[each].high)}
        raise GeomoeError(
            f"{', '.join(sorted(f'{path.parent.name}/{path.name}' for path in what))} show one place, and "
            "neither names nor days tell which belong together; give counterparts equal names"
        )
    by.update("date" if one in by_day else "place" for one in near)
    found |= near
    pairs: dict[int, list[PairOfScenes]] = defaultdict(list)
    for i, j in sorted(found):
        pairs[i].append(found[i, j])
    alone = [scenes[i].path for side, scenes in enumerate((low, high)) for i in _without(scenes, found, side)]
    return Matches(list(pairs.values()), by, alone)


def _without(scenes: Sequence[Footprint], found: _Found, side: int) -> list[int]:
    taken = {one[side] for one in found}
    return [i for i in range(len(scenes)) if i not in taken]


def _by_name(
    low: Sequence[Footprint],
    high: Sequence[Footprint],
    folders: tuple[Path, Path],
    area: Callable[[Footprint, Footprint], PairOfScenes | None],
) -> _Found:
    found: _Found = {}
    for whole in (True, False):  # with the folders below, then the file's name alone
        names = []
        for side, (scenes, folder) in enumerate(zip((low, high), folders, strict=True)):
            named = defaultdict(list)
            for i in _without(scenes, found, side):
                path = scenes[i].path
                named[_name(path.relative_to(folder) if whole else Path(path.name))].append(i)
            names.append({name: of[0] for name, of in named.items() if len(of) == 1})
        for name in sorted(names[0].keys() & names[1].keys()):
            i, j = (of[name] for of in names)
            if (pair := area(low[i], high[j])) is not None:
                found[i, j] = pair
    return found


def _name(path: Path) -> str:
    return re.sub(r"[\W_]+", " ", _RESOLUTION.sub("", path.with_suffix("").as_posix().casefold())).strip()


def _same_day(low: Footprint, high: Footprint, folders: tuple[Path, Path]) -> bool:
    days = [_day(scene, folder) for scene, folder in zip((low, high), folders, strict=True)]
    return days[0] != "" and days[0] == days[1]


def _day(scene: Footprint, folder: Path) -> str:
    if scene.acquired:
        return scene.acquired[:10]
    written = _DATE.search(scene.path.relative_to(folder).as_posix())
    return "-".join(written.groups()) if written else ""


def _overlapping(
    low: Sequence[Footprint], high: Sequence[Footprint], lows: Sequence[int], highs: Sequence[int]
) -> Iterator[tuple[int, int]]:
    boxes: dict[str, NDArray[np.float64]] = {}  # of the high-resolution scenes, by the low one's CRS
    for i in lows if highs else ():
        key = low[i].crs.to_wkt()
        if key not in boxes:
            boxes[key] = np.array([high[j].bounds(low[i].crs) for j in highs])  # [n, 4]
        left, bottom, right, top = low[i].bounds(low[i].crs)
        x0, y0, x1, y1 = boxes[key].T
        for at in np.flatnonzero((x0 < right) & (x1 > left) & (y0 < top) & (y1 > bottom)):
            yield i, highs[int(at)]


def _keep_days(near: _Found, same_day: Callable[[int, int], bool]) -> set[tuple[int, int]]:
    """Take the pairs of unlike days from those that a pair of one day is a rival of; gives the latter."""
    decided: set[tuple[int, int]] = set()
    gone: set[tuple[int, int]] = set()
    for both in _rivals(near):
        of_one_day = [one for one in both if same_day(*one)]
        if len(of_one_day) == 1:
            decided.add(of_one_day[0])
            gone.update(one for one in both if one not in of_one_day)
    for one in gone:
        del near[one]
    return decided - gone


def _rivals(near: _Found) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Two pairs that cannot both be meant: they have a scene in common, and of it the same place."""
    for side in (0, 1):
        groups = defaultdict(list)
        for one in near:
            groups[one[side]].append(one)
        for group in groups.values():
            windows = [near[one].high_window if side else near[one].low_window for one in group]
            boxes = np.array([(w.col_off, w.row_off, w.width, w.height) for w in windows], dtype=np.float64)
            for k, (x, y, width, height) in enumerate(boxes[:-1]):
                xs, ys, widths, heights = boxes[k + 1 :].T
                across = np.minimum(x + width, xs + widths) - np.maximum(x, xs)
                down = np.minimum(y + height, ys + heights) - np.maximum(y, ys)
                common = across.clip(0) * down.clip(0)
                share = common / (width * height + widths * heights - common)
                for at in np.flatnonzero(share > _SAME_PLACE):
                    yield group[k], group[k + 1 + int(at)]
