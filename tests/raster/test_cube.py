"""Cubes in files of NumPy's as scenes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster import open_scene
from geomoe.raster.stac.item import sha256
from tests.scenes import pixels


def test_a_cube_is_a_scene_of_its_bands_without_a_place(tmp_path: Path) -> None:
    data = pixels(40, 9, 7, "uint16")
    np.savez(tmp_path / "a.npz", cube=np.moveaxis(data, 0, 2), labels=np.zeros((9, 7), int))
    with open_scene(tmp_path / "a.npz") as scene:
        assert (scene.count, scene.height, scene.width, scene.dtype) == (40, 9, 7, "uint16")
        assert (scene.transform, scene.crs, scene.data_bands) == (None, None, tuple(range(1, 41)))
        got, valid = scene.read(Window(1, 2, 5, 6), scene.data_bands)
        assert valid.all()
        assert np.array_equal(got, data[:, 2:8, 1:6])
        assert scene.path.name == "a.npz"
        assert scene.digest() == sha256(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "held", [{"cube": np.ones((3, 4))}, {"cube": np.ones((3, 4, 2), int)}, {"x": np.ones(3)}]
)
def test_what_is_no_cube_is_refused(tmp_path: Path, held: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "a.npz", **held)
    with (
        pytest.raises(GeomoeError, match=r"expected \[H, W, bands\]|holds no 'cube'"),
        open_scene(tmp_path / "a.npz"),
    ):
        pass


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(GeomoeError, match="not a cube that can be read"), open_scene(tmp_path / "a.npz"):
        pass
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("cube.npy", b"not an array")
    with pytest.raises(GeomoeError, match="not a cube that can be read"), open_scene(tmp_path / "a.npz"):
        pass
