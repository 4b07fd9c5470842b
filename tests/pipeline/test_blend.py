"""Tiles of a model that is not local: what they give is blended where they overlap."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline import forecast_scene, plan_scene, predict
from geomoe.pipeline.blend import blended
from geomoe.pipeline.tiles import Tiles
from geomoe.raster.stac.item import read_item
from tests.pipeline.fakes import FakeUpscaler
from tests.scenes import pixels, write_scene

NAMES = ("dark", "bright")
TILING = Tiling(multiple=4, tile=16, margin=8)


class Cut(Exception):  # noqa: N818
    """What a killed process would be."""


class Pooled(nn.Module):
    """Brighter than the mean of all that it is shown, or not; so that no two tiles say the same."""

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        bright = 4 * (x.mean(1) - x.mean((1, 2, 3))[:, None, None])  # [B, H, W]
        return torch.stack([-bright, bright], 1)


def pooled(tiling: Tiling = TILING) -> FakeUpscaler:
    contract = ModelContract({"image": Input(3)}, {"classes": Output("classes", 2, classes=NAMES)}, tiling)
    return FakeUpscaler(Pooled(), contract)


@given(
    width=st.integers(1, 60), height=st.integers(1, 60), multiple=st.integers(1, 9),
    tile=st.integers(6, 40), margin=st.integers(1, 12),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_weights_of_all_tiles_are_one_in_sum(
    width: int, height: int, multiple: int, tile: int, margin: int
) -> None:
    tiles = Tiles(width, height, Tiling(multiple, multiple, margin), tile, blend=True)
    truth = np.random.default_rng(0).random((2, height, width), dtype=np.float32)
    for number, each in enumerate(tiles):
        core, window, box = each.core, each.window, tiles.given(number)
        assert window.x % multiple == window.y % multiple == 0
        assert window.x <= box.x <= core.x
        assert window.y <= box.y <= core.y
        assert core.x + core.width <= box.x + box.width <= window.x + window.width <= width
        assert core.y + core.height <= box.y + box.height <= window.y + window.height <= height
        if not tiles.overlap:
            continue
        side = tiles[0].core.width + 2 * tiles.margin if tiles.columns > 1 else width
        assert window.width > min(side, width) - multiple
        boxes = {near: tiles.given(near) for near in tiles.around(number)}
        parts = {n: truth[:, b.y : b.y + b.height, b.x : b.x + b.width] for n, b in boxes.items()}
        found = blended(tiles, number, parts)
        expected = truth[:, core.y : core.y + core.height, core.x : core.x + core.width]
        assert np.allclose(found, expected, rtol=1e-5)


def test_a_tile_fades_to_nothing_at_its_border_and_counts_half_on_the_line() -> None:
    tiles = Tiles(64, 16, TILING, blend=True)
    given = {n: np.full((1, 16, tiles.given(n).width), float(n == 1), np.float32) for n in range(4)}
    row = np.concatenate([blended(tiles, n, {near: given[near] for near in tiles.around(n)})[0, 0]
                          for n in range(4)])  # fmt: skip
    assert np.all(np.diff(row[8:24]) > 0)  # over the whole overlap, eight pixels on each side of the line
    assert np.all(row[:8] == 0)
    assert row[8] < 0.01
    assert row[15] + row[16] == pytest.approx(1)
    assert np.allclose(row[16:32], row[16:32][::-1])
    assert np.all(row[40:] == 0)


@pytest.fixture
def scene(src: Path) -> Path:
    data = pixels(3, 53, 61, "uint16")
    ramp = np.linspace(0, 20000, 61)[None, None] + np.linspace(0, 20000, 53)[None, :, None]
    return write_scene(src, (data // 20 + ramp).astype(np.uint16), names=("red", "green", "blue"))


def _confidence(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        sure: np.ndarray = file.read(1).astype(float)
    return sure


def test_no_line_shows_between_tiles_that_differ(scene: Path, tmp_path: Path) -> None:
    steps = {}
    for name, model in {"blended": pooled(), "cut": pooled(replace(TILING, reach=0))}.items():
        predict(scene, tmp_path / f"{name}.tif", model=model, confidence=tmp_path / f"{name}_c.tif")
        sure = _confidence(tmp_path / f"{name}_c.tif")
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            bright = np.where(file.read(1) == 2, sure, 255 - sure)
        across = np.abs(np.diff(bright, axis=1)).mean(0)
        lines = np.arange(15, len(across), 16)
        steps[name] = across[lines].mean() - np.delete(across, lines).mean()
    assert steps["cut"] > 20  # of 255 levels
    assert abs(steps["blended"]) < steps["cut"] / 10


def test_one_tile_is_what_the_model_makes_of_the_scene(scene: Path, dst: Path) -> None:
    done = predict(scene, dst, model=pooled(), tile=64)
    with rasterio.open(scene) as file, rasterio.open(dst) as made:
        data, found = file.read().astype(np.float32), made.read(1)
    low, high = (np.percentile(data, share, (1, 2), keepdims=True) for share in (0.1, 99.9))
    shown = torch.from_numpy(((data - low) / (high - low)).astype(np.float32))
    whole = pooled().model(shown[None])[0].argmax(0).numpy() + 1
    assert (found == whole).mean() > 0.99  # but where float32 is rounded to one side of the mean
    assert done.plan.tiles == 1


def test_neither_order_nor_threads_nor_an_interruption_show_in_the_bytes(scene: Path, tmp_path: Path) -> None:
    def made(order: list[int] | None = None, stop: int | None = None) -> list[bytes]:
        class Stops:
            left = stop

            def start(self, total: int, done: int, note: str) -> None: ...

            def advance(self) -> None:
                self.left = None if self.left is None else self.left - 1
                if self.left == 0:
                    raise Cut

            def close(self) -> None: ...

        places = [tmp_path / "out.tif", tmp_path / "c.tif"]
        for path in (*tmp_path.glob("out*"), *tmp_path.glob("c.*")):
            path.unlink()
        options = {"model": pooled(), "confidence": places[1]}
        if stop is not None:
            with pytest.raises(Cut):
                predict(scene, places[0], order=order, progress=Stops(), **options)
        done = predict(scene, places[0], order=order, **options)
        assert done.resumed == (stop or 0)
        return [path.read_bytes() for path in (*places, *done.items)]

    once, tiles = made(), plan_scene(scene, tmp_path / "x.tif", model=pooled(), scale=None).tiles
    assert tiles == 16
    assert made(np.random.default_rng(0).permutation(tiles).tolist()) == once
    assert made(stop=7) == once
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert made() == once
    finally:
        torch.set_num_threads(threads)


def test_a_tile_without_data_gives_nothing_to_those_around_it(dst: Path, src: Path) -> None:
    data = pixels(3, 16, 48, "uint16") | 1
    data[:, :, 20:] = 0
    write_scene(src, data, names=("red", "green", "blue"), nodata=0)
    done = predict(src, dst, model=pooled())
    with rasterio.open(dst) as file:
        made = file.read(1)
    assert done.skipped == 1
    assert (made[:, :20] > 0).all()
    assert (made[:, 20:] == 0).all()


def test_item_and_plan_say_over_how_many_pixels(scene: Path, tmp_path: Path) -> None:
    said = {}
    for name, tiling in {"far": TILING, "local": replace(TILING, reach=8)}.items():
        done = predict(scene, tmp_path / f"{name}.tif", model=pooled(tiling))
        properties = read_item(done.items[0])["properties"]
        said[name] = done.plan.overlap, properties["geomoe:configuration"]
        assert ("tiles are blended over 16 pixels" in properties["processing:lineage"]) == (name == "far")
    assert said["far"][0] == said["far"][1]["blend"] == 8
    assert said["local"][0] == 0
    assert "blend" not in json.dumps(said["local"][1])


def test_what_blending_takes_is_foretold(scene: Path, dst: Path) -> None:
    asked = {"model": pooled(), "scale": None}
    found = forecast_scene(scene, dst, **asked)
    local = plan_scene(scene, dst, model=pooled(replace(TILING, reach=8)), scale=None)
    assert found.plan.memory_bytes > local.memory_bytes  # rows of tiles that wait for each other
    assert not dst.exists()
