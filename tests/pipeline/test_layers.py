"""Maps beside the image: consistency with the scene, and where routing is unlike that of training."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geomoe import moe
from geomoe.errors import GeomoeError
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.reference import RoutingReference
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline import Request, plan_scene, upscale, verify
from geomoe.pipeline.job import is_made
from geomoe.pipeline.layers import LAYERS
from geomoe.pipeline.layers.base import DoneTile
from geomoe.pipeline.layers.consistency import Consistency
from tests.pipeline.fakes import FakeUpscaler, convolutional, nearest
from tests.scenes import left_over, pixels, write_scene


class Brightness(nn.Module):
    """Nearest upsampling and a bias; its router is shown every pixel's bands."""

    def __init__(self, bands: int, bias: float) -> None:
        super().__init__()
        self.router, self.bias = moe.switch_router(bands, 4), bias

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        pixels = moe.Pixels.of(x)
        plan = self.router(pixels.to_rows(x), pixels.grid)
        if trace is not None:
            trace.record(plan, self.router, pixels.to_rows(x))
        return F.interpolate(x + self.bias, scale_factor=2, mode="nearest")


def routed(bands: int = 3, bias: float = 0.0, limit: float = 0.3) -> FakeUpscaler:
    """Holds what is farther from grey (0.5) than ``limit`` for unlike training."""
    reference = RoutingReference(
        torch.full((bands,), 0.5, dtype=torch.float64),
        torch.eye(bands, dtype=torch.float64),
        bands * limit**2,
        0.99,
        "made up",
    )
    contract = ModelContract.of_images(2, bands, Tiling(4, 16, 4))
    return FakeUpscaler(Brightness(bands, bias), contract, reference=reference)


def read(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    with rasterio.open(path) as file:
        return file.read(), file.tags()


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return tmp_path / "src.tif"


def test_what_only_repeats_pixels_is_consistent(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(2, 30, 41, "uint16"), nodata=0)
    report = upscale(src, tmp_path / "d.tif", model=nearest(), scale=2, consistency=tmp_path / "c.tif")
    residual, _ = read(tmp_path / "c.tif")
    assert report.layers == {"consistency": tmp_path / "c.tif"}
    assert residual.dtype == np.float32
    assert residual.shape == (2, 30, 41)
    assert not residual.any()


def test_the_residual_is_in_the_units_of_the_scene(src: Path, tmp_path: Path) -> None:
    data = pixels(3, 20, 24, "uint8")
    data[:, 3:6, 4:9] = 0
    data[1, 10, 10] = 0  # in one band alone
    write_scene(src, data, nodata=0, names=["red", "green", "blue"])
    model = replace(routed(bias=20 / 255))
    upscale(src, tmp_path / "d.tif", model=model, scale=2, consistency=tmp_path / "c.tif")
    residual, _ = read(tmp_path / "c.tif")
    assert np.array_equal(np.isnan(residual), data == 0)
    expected = np.minimum(data.astype(float) + 20, 255) - data
    assert residual[data != 0] == pytest.approx(expected[data != 0], abs=1e-3)
    with rasterio.open(tmp_path / "c.tif") as file:
        assert np.isnan(file.nodata)
        assert file.descriptions == ("red", "green", "blue")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_what_training_did_not_have_is_marked_and_interpolated(src: Path, tmp_path: Path) -> None:
    data = np.full((3, 40, 40), 128, dtype=np.uint8)
    data[:, 8:20, 8:30] = 250  # far from grey
    data[:, 30:, 30:] = 0
    write_scene(src, data, nodata=0)
    model = routed(bias=20 / 255)
    plain, safe, mask = tmp_path / "plain.tif", tmp_path / "safe.tif", tmp_path / "mask.tif"
    upscale(src, plain, model=model, scale=2)
    upscale(src, safe, model=model, scale=2, reliability=mask, fallback=True)
    (reliable, ood_score), tags = read(mask)
    wanted = np.where(data[0] == 0, 0, np.where(data[0] == 250, 2, 1))
    assert np.array_equal(reliable, wanted)
    assert ood_score[data[0] == 250] == pytest.approx(100 * (250 / 255 - 0.5) / 0.3, abs=1)
    assert not ood_score[data[0] == 0].any()
    assert "interpolation" in json.loads(tags["GEOMOE_LEGEND"])["bands"]["reliable"]
    marked = (reliable == 2).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(read(safe)[0][:, ~marked], read(plain)[0][:, ~marked])
    # In the middle of an even patch interpolation gives its value; the model would add its bias.
    assert (read(safe)[0][:, 24:32, 24:52] == 250).all()
    assert (read(plain)[0][:, 24:32, 24:52] == 255).all()


def test_the_map_alone_changes_no_pixel(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(3, 33, 47, "uint8"))
    upscale(src, tmp_path / "a.tif", model=routed(), scale=2)
    upscale(src, tmp_path / "b.tif", model=routed(), scale=2, reliability=tmp_path / "r.tif")
    assert np.array_equal(read(tmp_path / "a.tif")[0], read(tmp_path / "b.tif")[0])
    assert set(np.unique(read(tmp_path / "r.tif")[0][0])) == {1, 2}


def test_every_group_of_bands_counts(src: Path, tmp_path: Path) -> None:
    data = np.full((6, 20, 20), 128, dtype=np.uint8)
    data[5, 4, 7] = 255  # seen by the second pass of a model of three bands
    data[5, 4, 8] = 0
    write_scene(src, data)
    upscale(src, tmp_path / "d.tif", model=routed(limit=0.25), scale=2, reliability=tmp_path / "r.tif")
    reliable = read(tmp_path / "r.tif")[0][0]
    assert {tuple(at) for at in np.argwhere(reliable == 2)} == {(4, 7), (4, 8)}


def test_bytes_do_not_depend_on_the_order_of_tiles(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(4, 50, 60, "uint16"), nodata=0)
    model, files = routed(), []
    for name, order in (("a", None), ("b", range(15, -1, -1))):
        (tmp_path / name).mkdir()
        outs = {
            layer: tmp_path / name / f"{layer}.tif" for layer in ("experts", "consistency", "reliability")
        }
        upscale(src, tmp_path / name / "d.tif", model=model, scale=2, fallback=True, order=order, **outs)
        files.append([path.read_bytes() for path in (tmp_path / name / "d.tif", *outs.values())])
        made = [made for made in left_over(tmp_path / name) if made.endswith(".tif")]
        assert made == ["consistency.tif", "d.tif", "experts.tif", "reliability.tif"]
        assert len(left_over(tmp_path / name)) == 2 * len(made) + 1  # an item each, and the model's
    assert files[0] == files[1]


def test_weights_without_a_reference_are_told_apart(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(3, 20, 20, "uint8"))
    with pytest.raises(GeomoeError, match="geomoe calibrate"):
        upscale(src, tmp_path / "d.tif", model=replace(routed(), reference=None), scale=2, fallback=True)
    with pytest.raises(GeomoeError, match="routes nothing"):
        upscale(src, tmp_path / "d.tif", model=convolutional(), scale=2, reliability=tmp_path / "r.tif")
    other = RoutingReference(torch.zeros(5), torch.eye(5), 1.0, 0.99, "made up")
    with pytest.raises(GeomoeError, match="for 5 channels"):
        upscale(src, tmp_path / "d.tif", model=replace(routed(), reference=other), scale=2, fallback=True)
    assert left_over(tmp_path) == ["src.tif"]


def test_no_hook_stays_on_the_model(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(3, 20, 20, "uint8"))
    model = routed()
    upscale(src, tmp_path / "d.tif", model=model, scale=2, fallback=True)
    assert not any(module._forward_hooks for module in model.model.modules())


def test_what_is_made_is_told_by_what_it_is(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(3, 20, 20, "uint8"))
    model, out, mask = routed(), tmp_path / "d.tif", tmp_path / "r.tif"
    upscale(src, out, model=model, scale=2, reliability=mask, fallback=True)
    asked = Request.of(src, out, model=model, scale=2, reliability=mask, fallback=True)
    assert is_made(asked)
    assert not is_made(replace(asked, fallback=False))
    assert not is_made(replace(asked, dst=mask, layers={"reliability": out})), "a map is not an image"
    assert not is_made(replace(asked, layers={"consistency": mask})), "nor another map"
    stricter = replace(model, reference=replace(model.reference, threshold=0.1))
    assert not is_made(replace(asked, model=stricter)), "calibrated anew, it would be another image"
    (tmp_path / "link.tif").symlink_to(out)
    assert is_made(replace(asked, dst=tmp_path / "link.tif"))


def test_a_fallback_that_cannot_be_had_is_told_by_the_plan(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(3, 20, 20, "uint8"))
    with pytest.raises(GeomoeError, match="routes nothing"):
        plan_scene(src, tmp_path / "d.tif", model=convolutional(), scale=2, fallback=True)


def test_a_map_is_one_module_and_one_line(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a keyword, a column in manifests and an item, and is known again when it is made."""

    class Sum(Consistency):
        name = "brightness"

        def pixels(self, tile: DoneTile) -> np.ndarray:
            return tile.source

    module = ModuleType("geomoe.pipeline.layers.brightness")
    module.layer = lambda request, model: Sum()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(LAYERS, "brightness", "the scene itself")
    data = pixels(3, 20, 20, "uint8")
    write_scene(src, data)
    out, place = tmp_path / "d.tif", tmp_path / "b.tif"
    report = upscale(src, out, model=nearest(), scale=2, brightness=place)
    assert report.layers == {"brightness": place}
    made, tags = read(place)
    assert np.array_equal(made, data)
    assert tags["GEOMOE_LAYER"] == "brightness"
    assert is_made(Request.of(src, out, model=nearest(), scale=2, brightness=place))
    assert verify(place).faults == ()
    with pytest.raises(GeomoeError, match="no map 'contrast'; expected one of experts, confidence, pro"):
        Request(src, out, layers={"contrast": place})
