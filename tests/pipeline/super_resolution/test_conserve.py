"""A scene is kept: the mean of the output over each of its pixels is that pixel."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor, nn

from geomoe.models.contract import ModelContract, Tiling
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline import Request, forecast_scene, plan_scene, read_manifest, upscale, verify
from geomoe.pipeline.batch.scene import do_scene
from geomoe.pipeline.job import is_made
from tests.pipeline.fakes import FakeUpscaler, convolutional, of
from tests.pipeline.test_layers import routed
from tests.scenes import left_over, pixels, write_scene


class Wild(nn.Module):
    """Takes neighbours off each other so that most pixels leave the range; sees one pixel around it.

    Sums of shifted images, no convolution: how they are rounded does not depend on the size of a tile.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        around = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        sharp = 3 * x - around[..., 2:, 1:-1] - around[..., 1:-1, 2:] + 0.02
        fine = nn.functional.interpolate(sharp, scale_factor=self.scale, mode="nearest")
        ramp = torch.linspace(-0.3, 0.4, self.scale).repeat(x.shape[-1])
        return fine + ramp


def wild(scale: int = 2, tile: int = 16) -> FakeUpscaler:
    return FakeUpscaler(Wild(scale), ModelContract.of_images(scale, 3, Tiling(4, tile, 4, reach=1)))


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and which are valid, ``[C, H, W]`` each."""
    with rasterio.open(path) as file:
        return file.read(), file.read_masks().astype(bool)


def means(data: np.ndarray, scale: int) -> np.ndarray:
    bands, height, width = data.shape
    return (
        data.astype(np.float64)
        .reshape(bands, height // scale, scale, width // scale, scale)
        .mean(axis=(2, 4))
    )


def assert_kept(path: Path, source: np.ndarray, valid: np.ndarray, scale: int) -> None:
    made, made_valid = read(path)
    assert np.array_equal(made_valid, valid.repeat(scale, 1).repeat(scale, 2))
    found = means(made, scale)[valid]
    if np.issubdtype(source.dtype, np.integer):
        assert np.array_equal(found, source[valid])
    else:
        largest = np.nanmax(np.abs(made))
        assert np.abs(found - source[valid]).max() <= np.spacing(np.float32(largest))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "int8"])
def test_every_mean_is_the_pixel(src: Path, dst: Path, dtype: str, scale: int) -> None:
    """Exactly, from edge to edge, where half of what the model draws is beyond the type's range."""
    source = pixels(4, 37, 45, dtype)
    low, high = (-1e30, 1e30) if dtype == "float32" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if dtype != "float32":
        source[0, 5:9, 7:20], source[1, 5:9, 7:20] = low, high  # all of these squares must be at the end
        source[2, 5:9, 7:20:2] = high
    write_scene(src, source)
    upscale(src, dst, model=wild(scale), scale=scale, conserve=True)
    assert_kept(dst, source, np.ones(source.shape, dtype=bool), scale)
    made, _ = read(dst)
    if dtype != "float32":
        assert {int(made.min()), int(made.max())} == {low, high}
    assert (made != source.repeat(scale, 1).repeat(scale, 2)).mean() > 0.8


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 0), ("uint8", 255), ("uint8", 100), ("uint16", 0), ("int16", -32768), ("int16", 3),
     ("float32", -9999.0), ("float32", 0.0), ("float32", float("nan"))],
)  # fmt: skip
def test_pixels_without_data_take_nothing_and_are_not_made(
    src: Path, dst: Path, dtype: str, nodata: float
) -> None:
    source = pixels(3, 30, 41, dtype)
    close = np.arange(-3, 4) if np.isfinite(nodata) and dtype != "float32" else []
    for i, step in enumerate(close):  # values whose squares straddle nodata
        if np.iinfo(dtype).min <= nodata + step <= np.iinfo(dtype).max:
            source[:, 20:28, 4 * i : 4 * i + 3] = int(nodata) + step
    source[:, :9, :12] = nodata
    source[1, 15, 30:36] = nodata  # in one band alone
    valid = ~np.isnan(source) if np.isnan(nodata) else source != nodata
    write_scene(src, source, nodata=nodata)
    upscale(src, dst, model=wild(3), scale=3, conserve=True)
    assert_kept(dst, source, valid, 3)


@pytest.mark.parametrize("nodata", [None, -7, 0, 5])
def test_squares_round_any_nodata_are_kept(nodata: int | None, src: Path, dst: Path) -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(-9, 10, (3, 40, 40)).astype(np.int16)
    source[source == nodata] = 1
    write_scene(src, source, nodata=nodata)
    upscale(src, dst, model=wild(4), scale=4, conserve=True, nodata="none" if nodata is None else None)
    assert_kept(dst, source, np.ones(source.shape, dtype=bool), 4)


def test_a_mask_is_heeded(src: Path, dst: Path) -> None:
    source, mask = pixels(3, 30, 30, "uint16"), np.ones((30, 30), dtype=bool)
    mask[10:14, :20] = False
    source[:, ~mask] = 65535  # what stands there must not reach its neighbours
    other = np.where(mask, source, source.dtype.type(7))
    made = []
    for data in (source, other):
        write_scene(src, data, mask=mask)
        upscale(src, dst, model=wild(), scale=2, conserve=True, overwrite=True)
        assert_kept(dst, data, np.broadcast_to(mask, data.shape), 2)
        made.append(read(dst)[0][:, mask.repeat(2, 0).repeat(2, 1)])
    assert np.array_equal(*made)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tiles_are_the_whole_to_the_byte(src: Path, tmp_path: Path, dtype: str) -> None:
    source = pixels(3, 50, 61, dtype)
    source[:, 20:30, 5:25] = source[0, 0, 0]
    write_scene(src, source)
    made = []
    for tile in (16, 24, 64):
        upscale(src, tmp_path / "d.tif", model=wild(3, tile), scale=3, conserve=True, overwrite=True)
        made.append(read(tmp_path / "d.tif")[0])
    assert np.array_equal(made[0], made[2])
    assert np.array_equal(made[1], made[2])


def test_what_fallback_draws_is_kept_too(src: Path, tmp_path: Path) -> None:
    source = pixels(3, 40, 40, "uint8")
    source[:, 8:20, 8:30] = 250
    write_scene(src, source, nodata=0)
    model, residual = routed(bias=20 / 255), tmp_path / "c.tif"
    upscale(
        src, tmp_path / "d.tif", model=model, scale=2, fallback=True, conserve=True, consistency=residual,
        reliability=tmp_path / "r.tif",
    )  # fmt: skip
    assert (read(tmp_path / "r.tif")[0][0] == 2).any()
    assert_kept(tmp_path / "d.tif", source, source != 0, 2)
    assert not read(residual)[0][source != 0].any()


def test_an_interrupted_job_ends_with_the_same_bytes(src: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    class Stopping:
        done = 0

        def start(self, total: int, done: int, note: str = "") -> None:
            pass

        def advance(self) -> None:
            self.done += 1
            if self.done == 4:
                raise StopError

        def close(self) -> None:
            pass

    write_scene(src, pixels(3, 40, 40, "uint16"))
    options: dict[str, Any] = {"model": wild(), "scale": 2, "conserve": True}
    for name in ("whole", "cut", "other"):
        (tmp_path / name).mkdir()
    upscale(src, tmp_path / "whole" / "d.tif", **options)
    for name in ("cut", "other"):
        with pytest.raises(StopError):
            upscale(src, tmp_path / name / "d.tif", progress=Stopping(), **options)
    assert upscale(src, tmp_path / "cut" / "d.tif", **options).resumed > 0
    for file in left_over(tmp_path / "whole"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert upscale(src, tmp_path / "other" / "d.tif", **{**options, "conserve": False}).resumed == 0


def test_it_is_part_of_what_a_file_is_and_said(src: Path, dst: Path) -> None:
    write_scene(src, pixels(3, 40, 40, "uint8"))
    model = wild()
    upscale(src, dst, model=model, scale=2, conserve=True)
    request = Request(src, dst, model, 2, conserve=True)
    assert is_made(request)
    assert not is_made(replace(request, conserve=False))
    item = json.loads(dst.with_name("dst.stac.json").read_text())["properties"]
    assert item["geomoe:configuration"]["conserve"] is True
    assert "The mean of the image over each pixel of the source is that pixel" in item["processing:lineage"]
    assert "with a margin of 4 and" in item["processing:lineage"]
    found = verify(dst, source=src)
    assert (found.faults, found.facts["conserve"]) == ((), "means are the source's pixels")


def test_the_margin_that_it_needs_is_planned_foretold_and_said(src: Path, dst: Path) -> None:
    write_scene(src, pixels(3, 100, 100, "uint8"))
    model = replace(convolutional(), contract=ModelContract.of_images(2, 3, Tiling(4, 32, 4, reach=3)))
    plain, kept = (plan_scene(src, dst, model=model, scale=2, conserve=on) for on in (False, True))
    assert kept.memory_bytes > plain.memory_bytes
    assert forecast_scene(src, dst, model=model, scale=2, conserve=True).plan == kept
    upscale(src, dst, model=model, scale=2, conserve=True)
    item = json.loads(dst.with_name("dst.stac.json").read_text())["properties"]
    assert "with a margin of 8 and" in item["processing:lineage"]
    assert item["geomoe:configuration"]["contract"]["margin"] == 4  # the model's own, as its item says
    assert verify(dst).faults == ()


def test_a_manifest_takes_it_too(tmp_path: Path, settings: Request) -> None:
    source = pixels(3, 24, 24, "uint8")
    write_scene(tmp_path / "a.tif", source)
    (tmp_path / "m.csv").write_text("src,dst\na.tif,b.tif\n")
    (task,) = of(read_manifest(tmp_path / "m.csv"), settings)
    assert do_scene(replace(task, conserve=True)).status == "done"
    assert do_scene(replace(task, conserve=True)).status == "there"
    assert_kept(tmp_path / "b.tif", source, np.ones(source.shape, dtype=bool), 2)
