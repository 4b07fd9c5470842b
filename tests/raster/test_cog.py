"""What is written is whole, checked, and says what its source said."""

from __future__ import annotations

import dataclasses
import shutil
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
from geomoe.raster import CogMetadata, Scratch, carried_over, open_scene, write_cog
from geomoe.raster.read.env import gdal_env
from geomoe.raster.write.cog import estimated_bytes
from geomoe.raster.write.scratch import LayoutError, sums_of
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
    work = target.with_name("work")
    work.mkdir()
    scratch, pieces = Scratch(work, meta), []
    with gdal_env():
        scratch.create()
        with scratch:
            for y in range(0, meta.height, step):
                for x in range(0, meta.width, step):
                    rows, columns = slice(y, y + step), slice(x, x + step)
                    part = data[:, rows, columns]
                    window = Window(x, y, part.shape[2], part.shape[1])
                    pieces.append((window, scratch.write(window, part, valid[rows, columns])))
                    back, mask = scratch.read(window)
                    assert sums_of(back, mask) == pieces[-1][1]
    nodata = np.nan if meta.nan_nodata and np.isnan(data).any() else meta.nodata
    write_cog(scratch, work / "part.tif", pieces, nodata, target.name)
    (work / "part.tif").rename(target)
    assert left_over(work) == ["scratch.tif", "scratch.tif.msk"][: 1 + meta.mask]
    shutil.rmtree(work)


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


def test_blocks_are_where_they_were_whatever_is_written(tmp_path: Path) -> None:
    """A process that is killed leaves a file like any other: its layout never changes."""
    data, keep = pixels(2, 300, 520, "uint16"), np.random.default_rng(0).random((300, 520)) > 0.5
    meta = _metadata(tmp_path, data, mask=keep)
    scratch = Scratch(tmp_path, meta)
    with gdal_env():
        scratch.create()
    laid_out = [path.stat().st_size for path in scratch.paths]
    assert sum(path.stat().st_blocks for path in scratch.paths) * 512 < sum(laid_out) / 4, (
        "not on the disk yet"
    )
    with gdal_env(), scratch:
        scratch.write(Window(250, 100, 200, 180), data[:, 100:280, 250:450], keep[100:280, 250:450])
        back, mask = scratch.read(Window(240, 90, 220, 200))
    assert np.array_equal(back[:, 10:-10, 10:-10], data[:, 100:280, 250:450])
    assert np.array_equal(mask[10:-10, 10:-10] > 0, keep[100:280, 250:450])
    back[:, 10:-10, 10:-10] = 0
    assert not back.any()
    assert [path.stat().st_size for path in scratch.paths] == laid_out
    with rasterio.open(scratch.path) as file:
        assert np.array_equal(file.read()[:, 100:280, 250:450], data[:, 100:280, 250:450])


@pytest.mark.parametrize("damage", ["short", "gone", "other"])
def test_scratch_files_that_cannot_be_gone_on_with(tmp_path: Path, damage: str) -> None:
    data = pixels(1, 300, 300, "uint8")
    scratch = Scratch(tmp_path, _metadata(tmp_path, data))
    with gdal_env():
        scratch.create()
        if damage == "short":
            with scratch.path.open("r+b") as file:
                file.truncate(100_000)
        elif damage == "gone":
            scratch.path.unlink()
        else:
            write_scene(scratch.path, data, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
        with pytest.raises((LayoutError, rasterio.RasterioIOError)):
            scratch.open()


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


def test_estimates_hold_for_noise(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 2**16, (2, 900, 900), dtype=np.uint16)
    meta = _metadata(tmp_path, data)
    scratch, cog = estimated_bytes(meta)
    _write(tmp_path / "out.tif", meta, data)
    assert scratch >= data.nbytes
    assert (tmp_path / "out.tif").stat().st_size <= cog
