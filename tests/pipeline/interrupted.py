"""Jobs that are cut off after so many tiles, for the tests of what is left of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geomoe.pipeline import SceneReport, upscale
from tests.pipeline.fakes import nearest
from tests.scenes import left_over, pixels, write_scene

TILES = 9
MADE = ["experts.stac.json", "experts.tif", "fake.0123abcd.stac.json", "out.stac.json", "out.tif"]


class Cut(BaseException):
    """As an interruption: no error of the job's."""


class Counting:
    """Lets so many tiles be done, and keeps what it was told."""

    def __init__(self, tiles: int = TILES) -> None:
        self.left = tiles
        self.told: tuple[int, int, str] = (0, 0, "")

    def start(self, total: int, done: int, note: str) -> None:
        self.told = (total, done, note)

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cut

    def close(self) -> None:
        pass


def left_alone(folder: Path) -> Path:
    """In ``folder`` a scene with a hole in it, and the outputs of a job on it that was left alone."""
    keep = np.random.default_rng(1).random((40, 40)) > 0.2
    keep[:16, :16] = False
    write_scene(folder / "src.tif", np.where(keep, pixels(3, 40, 40, "float32"), np.float32(np.nan)))
    (folder / "whole").mkdir()
    run_job(folder / "src.tif", folder / "whole", Counting(TILES + 1))
    (folder / "cut").mkdir()
    return folder


def run_job(src: Path, out: Path, progress: Counting, **options: object) -> SceneReport:
    """A job with a map, on tiles that are counted."""
    given: dict[str, object] = {"model": nearest(), "scale": 2, "experts": out / "experts.tif", **options}
    return upscale(src, out / "out.tif", progress=progress, **given)


def cut_job(folder: Path, tiles: int, **options: object) -> Path:
    """A job that is cut off after so many tiles; gives the folder of its work."""
    with pytest.raises(Cut) as caught:
        run_job(folder / "src.tif", folder / "cut", Counting(tiles), **options)
    kept = folder / "cut" / ".out.tif.geomoe"
    assert caught.value.__notes__ == [
        f"{tiles} of {TILES} tiles are kept in {kept}; the same command resumes it"
    ]
    return kept


def same_files(folder: Path) -> bool:
    """Whether a job that was cut off has the files of one that was left alone, and no others."""
    assert left_over(folder / "cut") == MADE
    cut, whole = folder / "cut", folder / "whole"
    return all((cut / name).read_bytes() == (whole / name).read_bytes() for name in MADE)
