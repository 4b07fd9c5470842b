"""``geomoe predict`` with everything that is made of a map, killed and given again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomoe.pipeline import checkpoint
from geomoe.raster.vectors import polygons, summary
from tests.cli.run import run
from tests.pipeline.test_predict import BANDS, NAMES, weights
from tests.scenes import left_over, pixels, write_scene

KILLS = ((checkpoint.Work, "write", 4), (checkpoint, "commit", 1), (polygons, "_placed", 3),
         (summary, "write_csv", 1))  # fmt: skip
"""Among the tiles, before the files are placed, among the polygons, and when all but the table is there."""


def _killed(work: Callable[[], object], of: Any, name: str, call: int) -> bool:
    """Do something in a child, which is killed where it calls ``name`` for that time; whether it was."""
    if not (child := os.fork()):
        signal.alarm(120)
        called, real = 0, getattr(of, name)

        def counted(*args: object, **options: object) -> object:
            nonlocal called
            called += 1
            if called == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        setattr(of, name, counted)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed as on POSIX")
def test_killed_four_times_it_ends_with_the_bytes_of_one_that_was_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("pyogrio")
    model = weights(tmp_path / "land.safetensors").path
    src = write_scene(tmp_path / "s.tif", pixels(BANDS, 40, 50, "uint16"), names=NAMES)

    def asked(folder: str) -> tuple[object, ...]:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        layers = ("--probabilities", place / "p.tif", "--confidence", place / "c.tif")
        of_map = ("--vectors", place / "v.gpkg", "--summary", place / "t.csv")
        return ("predict", src, place / "o.tif", "--model", model, "--tile", 16, *layers, *of_map)

    assert run(capsys, *asked("whole"))[0] == 0
    for of, name, call in KILLS:
        assert _killed(lambda: run(capsys, *asked("cut")), of, name, call), name
    status, _, err = run(capsys, *asked("cut"))
    assert status == 0, err
    made = left_over(tmp_path / "whole")
    left = [name for name in left_over(tmp_path / "cut") if not name.endswith(".part")]
    assert left == made
    assert len(made) == 10  # three maps with items, names of classes, the model, polygons, table
    for name in made:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    status, _, err = run(capsys, *asked("cut"))
    assert (status, "v.gpkg exists; use --overwrite" in err) == (1, True)
