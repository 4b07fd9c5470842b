"""A scene that is written while it is read is found out, and no file is made of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.pipeline import upscale
from geomoe.raster.formats import watch as watch_module
from geomoe.raster.formats.watch import ChangedError, Watch
from tests.pipeline.fakes import convolutional, nearest
from tests.products import write_item, write_safe
from tests.scenes import left_over, pixels, write_scene

TILES = 9


class Doing:
    """Does something when so many tiles are done."""

    def __init__(self, tiles: int, what: Callable[[], object]) -> None:
        self.tiles, self.what = tiles, what

    def start(self, total: int, done: int, note: str) -> None:
        pass

    def advance(self) -> None:
        self.tiles -= 1
        if self.tiles == 0:
            self.what()

    def close(self) -> None:
        pass


@pytest.fixture
def src(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return write_scene(tmp_path / "src.tif", pixels(3, 40, 40, "uint16"))


def _other(src: Path) -> Path:
    return write_scene(src.with_name("other.tif"), pixels(3, 40, 40, "uint16", seed=5))


def _rewrite(src: Path) -> None:
    src.write_bytes(_other(src).read_bytes())


def _replace(src: Path) -> None:
    _other(src).replace(src)


def _cut(src: Path) -> None:
    os.truncate(src, 4000)


def _flip(src: Path) -> None:
    """One byte, and the time as it was: as of a file that is mapped, or on a disk with coarse times."""
    times = src.stat()
    with src.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(src, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("harm", [_rewrite, _replace, _cut, _flip, Path.unlink])
@pytest.mark.parametrize("tile", [1, 5, TILES])
def test_a_scene_that_changes_during_the_job(src: Path, harm: Callable[[Path], None], tile: int) -> None:
    out = src.parent / "out"
    with pytest.raises(GeomoeError, match=r"src\.tif changed while it was read; |cannot read .*src\.tif"):
        upscale(src, out / "o.tif", model=nearest(), scale=2, progress=Doing(tile, lambda: harm(src)))
    assert not [name for name in left_over(out) if not name.endswith(".geomoe")]


def test_what_may_be_of_two_states_is_thrown_away(src: Path) -> None:
    out = src.parent / "out"
    with pytest.raises(ChangedError):
        upscale(src, out / "o.tif", model=nearest(), scale=2, progress=Doing(4, lambda: _rewrite(src)))
    assert not left_over(out)
    report = upscale(src, out / "o.tif", model=nearest(), scale=2)
    assert report.resumed == 0


def test_a_scene_that_was_only_touched_is_the_same(src: Path) -> None:
    out = src.parent / "out"

    def touch() -> None:
        shutil.copy(src, src.with_name("copy.tif"))
        src.with_name("copy.tif").replace(src)

    upscale(src, out / "o.tif", model=nearest(), scale=2, progress=Doing(4, touch))
    assert (out / "o.tif").exists()


def test_a_scene_that_changes_while_it_is_opened(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomoe.pipeline import job

    look = job._look
    monkeypatch.setattr(job, "_look", lambda *given: (_rewrite(src), look(*given))[1])
    with pytest.raises(ChangedError):
        upscale(src, src.parent / "out" / "o.tif", model=nearest(), scale=2)


@pytest.mark.parametrize("part", ["B04_10m.jp2", "MTD_MSIL2A.xml", "item.json", "red.tif"])
def test_of_a_product_or_item_every_file_counts(tmp_path: Path, part: str) -> None:
    (tmp_path / "out").mkdir()
    if part.endswith((".jp2", ".xml")):
        src = write_safe(tmp_path / "p.SAFE")
        file = next(src.rglob(f"*{part}"))
    else:
        write_scene(tmp_path / "red.tif", pixels(1, 40, 40, "uint16"))
        src = write_item(tmp_path / "item.json", {"red": {"href": "./red.tif"}})
        file = tmp_path / part
    with pytest.raises(GeomoeError):
        upscale(
            src, tmp_path / "out" / "o.tif", model=nearest(), scale=2,
            progress=Doing(1, lambda: file.write_bytes(file.read_bytes() + b" ")),
        )  # fmt: skip
    assert not [name for name in left_over(tmp_path / "out") if not name.endswith(".geomoe")]


def test_a_watch_tells_what_changed_once(src: Path) -> None:
    found = Watch(src)
    assert found.changed() == []
    _rewrite(src)
    assert found.changed() == [src]
    assert found.changed() == []


def test_a_folder_of_anything_is_not_walked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("it may hold a million files"))
    assert list(watch_module._files(tmp_path)) == [tmp_path]


def test_another_arithmetic_is_another_job(src: Path) -> None:
    """Weights of the same name and hash, that make other numbers: as on a machine that rounds otherwise."""
    out, model = src.parent / "out", convolutional()
    with pytest.raises(KeyboardInterrupt):
        upscale(src, out / "o.tif", model=model, scale=2, progress=Doing(4, _interrupt))
    other = convolutional()
    with torch.no_grad():
        other.model.layers[2].bias += 0.01
    heard = Hearing()
    upscale(src, out / "o.tif", model=other, scale=2, progress=heard)
    assert heard.told == "0 starts over: what was begun here before is another arithmetic"
    upscale(src, out / "whole.tif", model=other, scale=2)
    assert (out / "o.tif").read_bytes() == (out / "whole.tif").read_bytes()


def test_what_was_begun_is_checked_by_one_tile_of_it(src: Path) -> None:
    out, model = src.parent / "out", convolutional()
    with pytest.raises(KeyboardInterrupt):
        upscale(src, out / "o.tif", model=model, scale=2, progress=Doing(4, _interrupt))
    passes: list[int] = []
    model.model.register_forward_hook(lambda *_: passes.append(1))
    heard = Hearing()
    upscale(src, out / "o.tif", model=model, scale=2, progress=heard)
    assert heard.told == "4 resumes: 4 of 9 tiles were done"
    assert len(passes) == TILES - 4 + 1
    upscale(src, out / "whole.tif", model=model, scale=2)
    assert len(passes) == TILES - 4 + 1 + TILES, "none before the first tile"


class Hearing(Doing):
    """Keeps what is told when the work begins."""

    def __init__(self) -> None:
        super().__init__(-1, print)
        self.told = ""

    def start(self, total: int, done: int, note: str) -> None:
        self.told = f"{done} {note}"


def _interrupt() -> None:
    raise KeyboardInterrupt
