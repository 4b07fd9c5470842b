"""What is written is whole, checked, and says what its source said."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster import CogMetadata, CogWriter, carried_over, commit, open_scene
from geomoe.raster.cog import estimated_bytes
from geomoe.raster.target import Target
from tests.scenes import left_over, pixels, write_scene

ROTATED = Affine.translation(4e5, 5e6) * Affine.rotation(20) * Affine.scale(10, -20)


def _metadata(folder: Path, data: NDArray[Any], scale: int = 1, **options: Any) -> CogMetadata:
    with open_scene(write_scene(folder / "like.tif", data, **options)) as scene:
        return carried_over(scene, scene.data_bands, scale, {"GEOMOE_MODEL": "none"})


def _write(
    target: Path,
    meta: CogMetadata,
    data: NDArray[Any],
    valid: NDArray[np.bool_] | None = None,
    step: int = 300,
) -> None:
    if valid is None:
        valid = np.ones(data.shape[1:], dtype=bool)
    place = Target(target, [], overwrite=False)
    with CogWriter(place, meta) as writer:
        for y in range(0, meta.height, step):
            for x in range(0, meta.width, step):
                rows, columns = slice(y, y + step), slice(x, x + step)
                part = data[:, rows, columns]
                window = Window(x, y, part.shape[2], part.shape[1])
                writer.write(window, part, valid[rows, columns])
        writer.finish()
        commit([place])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_is_a_cog_with_overviews_that_holds_what_was_written(tmp_path: Path, dtype: str) -> None:
    data = pixels(3, 700, 1100, dtype)
    meta = _metadata(tmp_path, data)
    _write(tmp_path / "out.tif", meta, data)
    with rasterio.open(tmp_path / "out.tif") as cog:
        assert np.array_equal(cog.read(), data)
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert cog.overviews(1) == [2, 4]
        assert cog.block_shapes[0] == (512, 512)
        assert (cog.compression.name, cog.nodata) == ("deflate", None)
        assert cog.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == ("3" if dtype == "float32" else "2")
        assert cog.dataset_mask().all()
    assert left_over(tmp_path) == ["like.tif", "out.tif"]


def test_same_bytes_each_time_and_for_any_windows(tmp_path: Path) -> None:
    data, keep = pixels(2, 600, 700, "uint16"), np.random.default_rng(0).random((600, 700)) > 0.3
    meta = _metadata(tmp_path, data, mask=keep)
    for name, step in (("a.tif", 700), ("b.tif", 130), ("c.tif", 130)):
        _write(tmp_path / name, meta, data, keep, step)
    first = (tmp_path / "a.tif").read_bytes()
    assert first == (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as cog:
        assert np.array_equal(cog.dataset_mask() > 0, keep)


def _rich(path: Path) -> Path:
    """Four uint8 bands, the fourth infrared and no alpha, with all that a band can say."""
    write_scene(path, pixels(4, 40, 50, "uint8"), transform=ROTATED, nodata=0, names=["Red", "G", "B", "NIR"])
    with rasterio.open(path, "r+") as scene:
        scene.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
        scene.scales, scene.offsets = (1e-4, 2.0, 1.0, 0.5), (-0.1, 0.0, 3.0, 0.0)
        scene.units = ("reflectance", "", "K", "m")
        scene.update_tags(SOURCE="somewhere", NODATA_VALUES="0 0 0 0", TIFFTAG_DATETIME="2020:01:02 03:04:05")
        scene.update_tags(ns="MINE", key="value")
        scene.update_tags(2, STATISTICS_MEAN="7", wavelength="560")
    return path


def test_everything_but_the_pixels_is_carried_over(tmp_path: Path) -> None:
    with open_scene(_rich(tmp_path / "like.tif")) as scene:
        meta = carried_over(scene, (4, 1, 2, 3), 3, {"GEOMOE_MODEL": "none"})
    _write(tmp_path / "out.tif", meta, pixels(4, 120, 150, "uint8"))
    with rasterio.open(tmp_path / "out.tif") as cog:
        assert cog.descriptions == ("NIR", "Red", "G", "B")
        assert cog.scales == (0.5, 1e-4, 2.0, 1.0)
        assert cog.offsets == (0.0, -0.1, 0.0, 3.0)
        assert [unit or "" for unit in cog.units] == ["m", "reflectance", "", "K"]
        assert [c.name for c in cog.colorinterp] == ["undefined", "red", "green", "blue"]
        assert (cog.nodata, cog.crs.to_epsg(), cog.count) == (0, 32618, 4)
        assert tuple(cog.transform) == pytest.approx(tuple(ROTATED * Affine.scale(1 / 3)), rel=1e-15)
        tags = cog.tags()
        assert (tags["SOURCE"], tags["GEOMOE_MODEL"]) == ("somewhere", "none")
        assert tags["TIFFTAG_DATETIME"] == "2020:01:02 03:04:05"
        assert "NODATA_VALUES" not in tags
        assert tags["MINE.key"] == "value"  # GDAL keeps tags of bands or of other domains, not both
        assert cog.tags(3) == {"wavelength": "560"}


def test_tags_of_other_domains_stay_in_their_domain(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "like.tif", pixels(1, 8, 8, "uint8"))
    with rasterio.open(path, "r+") as scene:
        scene.update_tags(ns="MINE", key="value")
    with open_scene(path) as source:
        meta = carried_over(source, (1,), 1, {})
    _write(tmp_path / "out.tif", meta, pixels(1, 8, 8, "uint8"))
    with rasterio.open(tmp_path / "out.tif") as cog:
        assert cog.tags(ns="MINE") == {"key": "value"}


def test_rgb_and_four_plain_bands_keep_their_colours(tmp_path: Path) -> None:
    for number, colours in enumerate(
        [["red", "green", "blue"], ["gray", *["undefined"] * 3], ["gray", "nir"]]
    ):
        data = pixels(len(colours), 8, 8, "uint8")
        meta = _metadata(tmp_path, data)
        meta = dataclasses.replace(meta, colorinterp=tuple(ColorInterp[c] for c in colours))
        _write(tmp_path / f"{number}.tif", meta, data)
        with rasterio.open(tmp_path / f"{number}.tif") as cog:
            assert [c.name for c in cog.colorinterp] == colours
            assert cog.dataset_mask().all()


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_point_grids_stay_point_grids(tmp_path: Path, scale: int) -> None:
    path = write_scene(tmp_path / "like.tif", pixels(1, 5, 6, "uint16"))
    with rasterio.open(path, "r+") as scene:
        scene.update_tags(AREA_OR_POINT="Point")
    with open_scene(path) as source:
        transform = source.transform
        assert transform is not None
        meta = carried_over(source, (1,), scale, {})
    _write(tmp_path / "out.tif", meta, pixels(1, 5 * scale, 6 * scale, "uint16"))
    with rasterio.open(tmp_path / "out.tif") as cog:
        assert cog.tags()["AREA_OR_POINT"] == "Point"
        assert cog.transform.almost_equals(transform * Affine.scale(1 / scale), precision=1e-8)


@pytest.mark.parametrize("stands_for", ["Area", "Point"])
def test_gcps_and_rpcs_are_scaled(tmp_path: Path, stands_for: str) -> None:
    points = [GroundControlPoint(row=r, col=c, x=3 + c, y=5 - r, z=1) for r, c in [(0, 0), (0, 6.5), (5, 0)]]
    rpcs = RPC(
        height_off=100, height_scale=500, lat_off=1, lat_scale=2, long_off=3, long_scale=4,
        line_den_coeff=[1.0] * 20, line_num_coeff=[2.0] * 20, samp_den_coeff=[3.0] * 20,
        samp_num_coeff=[0.1] * 20, line_off=2, line_scale=50, samp_off=3, samp_scale=10,
        err_bias=1, err_rand=2,
    )  # fmt: skip
    path = write_scene(tmp_path / "like.tif", pixels(1, 5, 6, "uint16"), transform=None, crs=None)
    with rasterio.open(path, "r+") as scene:
        scene.update_tags(AREA_OR_POINT=stands_for)
        scene.gcps = (points, rasterio.CRS.from_epsg(4326))
        scene.rpcs = rpcs
    with open_scene(path) as source:
        points = list(source.gcps)
        meta = carried_over(source, (1,), 4, {})
    _write(tmp_path / "out.tif", meta, pixels(1, 20, 24, "uint16"))
    with rasterio.open(tmp_path / "out.tif") as cog:
        got, crs = cog.gcps
        assert crs.to_epsg() == 4326
        assert [(p.row, p.col, p.x, p.y) for p in got] == [(p.row * 4, p.col * 4, p.x, p.y) for p in points]
        assert (cog.rpcs.line_off, cog.rpcs.samp_off, cog.rpcs.line_scale) == (9.5, 13.5, 200)
        assert cog.rpcs.samp_num_coeff == rpcs.samp_num_coeff
    assert left_over(tmp_path) == ["like.tif", "out.tif"]


def test_scene_without_a_grid_gets_none(tmp_path: Path) -> None:
    data = pixels(1, 8, 8, "uint8")
    meta = _metadata(tmp_path, data, transform=None, crs=None)
    _write(tmp_path / "out.tif", meta, data)
    with rasterio.open(tmp_path / "out.tif") as cog:
        assert cog.transform.is_identity
        assert cog.crs is None


def test_nan_becomes_nodata_only_where_there_is_any(tmp_path: Path) -> None:
    data = pixels(1, 8, 8, "float32")
    _write(tmp_path / "plain.tif", _metadata(tmp_path, data), data)
    data[0, 2, 3] = np.nan
    _write(tmp_path / "holes.tif", _metadata(tmp_path, data), data)
    with rasterio.open(tmp_path / "plain.tif") as plain, rasterio.open(tmp_path / "holes.tif") as holes:
        assert plain.nodata is None
        assert np.isnan(holes.nodata)
        assert np.array_equal(holes.dataset_mask() > 0, np.isfinite(data[0]))


def test_a_missing_window_is_a_programming_error(tmp_path: Path) -> None:
    data = pixels(1, 8, 8, "uint8")
    with CogWriter(Target(tmp_path / "out.tif", [], overwrite=False), _metadata(tmp_path, data)) as writer:
        writer.write(Window(0, 0, 4, 8), data[:, :, :4], np.ones((8, 4), dtype=bool))
        with pytest.raises(RuntimeError, match="32 pixels written of 64"):
            writer.finish()
    assert left_over(tmp_path) == ["like.tif"]


def test_a_lost_write_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pixels(1, 64, 64, "uint8")
    meta = _metadata(tmp_path, data)
    copy = rasterio.shutil.copy

    def lossy(src: Path, dst: Path, **options: Any) -> None:
        with rasterio.open(src, "r+") as scratch:
            scratch.write(np.zeros((1, 8, 8), dtype=np.uint8), window=Window(8, 8, 8, 8))
        copy(src, dst, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", lossy)
    with pytest.raises(GeomoeError, match="does not read back"):
        _write(tmp_path / "out.tif", meta, data)
    assert left_over(tmp_path) == ["like.tif"]


def test_estimates_hold_for_noise(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 2**16, (2, 900, 900), dtype=np.uint16)
    meta = _metadata(tmp_path, data)
    scratch, cog = estimated_bytes(meta)
    _write(tmp_path / "out.tif", meta, data)
    assert scratch >= data.nbytes
    assert (tmp_path / "out.tif").stat().st_size <= cog


_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from rasterio.windows import Window
from geomoe.errors import GeomoeError
from geomoe.raster import CogWriter, carried_over, commit, open_scene
from geomoe.raster.target import Target
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
with open_scene(folder / "like.tif") as scene:
    meta = carried_over(scene, (1,), 1, {})
    data, _ = scene.read(Window(0, 0, meta.width, meta.height), (1,))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
target = Target(folder / "out.tif", [], overwrite=False)
try:
    with CogWriter(target, meta) as writer:
        for y in range(0, meta.height, 128):
            part = data[:, y : y + 128].astype(np.uint16)
            writer.write(Window(0, y, meta.width, 128), part, np.ones(part.shape[1:], dtype=bool))
        writer.finish()
        commit([target])
except GeomoeError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95, 1.005])
def test_full_disk_leaves_an_error_and_nothing_else(tmp_path: Path, share: float) -> None:
    """Files may grow to a share of the scratch's size; past 1 it is the COG's overviews that do not fit."""
    data = np.random.default_rng(0).integers(0, 65535, (1, 1024, 1024), dtype=np.uint16)
    write_scene(tmp_path / "like.tif", data)
    command = [sys.executable, "-c", _FULL_DISK, str(tmp_path), str(int(data.nbytes * share))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 3, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""  # libtiff would tell of every block
    assert "out.tif" in done.stdout
    assert left_over(tmp_path) == ["like.tif"]
