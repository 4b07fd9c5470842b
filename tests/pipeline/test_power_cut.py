"""What stands at its place is on the disk, whatever happens to the machine then."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from geomoe.pipeline import upscale
from tests.pipeline.fakes import nearest
from tests.scenes import pixels, write_scene


def test_files_are_on_the_disk_before_they_have_their_names_and_the_names_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int, int]] = []
    sync, place = os.fsync, os.replace

    def fsync(handle: int) -> None:
        found = os.fstat(handle)
        done.append(("sync", found.st_ino, 0 if stat.S_ISDIR(found.st_mode) else found.st_size))
        sync(handle)

    def replace(source: Path, target: Path) -> None:
        found = os.stat(source)
        assert ("sync", found.st_ino, found.st_size) in done, target
        done.append(("name", found.st_ino, 0))
        place(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    (tmp_path / "out").mkdir()
    src = write_scene(tmp_path / "src.tif", pixels(3, 12, 16, "uint8"))
    upscale(src, tmp_path / "out" / "out.tif", model=nearest(), scale=2, experts=tmp_path / "out" / "map.tif")
    named = [i for i, (what, _, _) in enumerate(done) if what == "name"]
    made = {path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    assert len(made) == 5
    assert made <= {done[i][1] for i in named}
    assert ("sync", (tmp_path / "out").stat().st_ino, 0) in done[named[-1] :]
