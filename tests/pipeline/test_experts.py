"""Which models have an expert map, and what it may say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch

from geomoe import GeomoeError
from geomoe.models.contract import ModelContract, Tiling
from geomoe.moe.plan import RoutingPlan
from geomoe.pipeline import plan_scene, upscale
from geomoe.pipeline.layers.routing import cell_of, on_pixels, routed_layers, unit_of
from tests.models.sizes import tiny
from tests.pipeline.fakes import FakeUpscaler, convolutional, nearest
from tests.scenes import pixels, write_scene


def loaded(name):
    model = tiny(name)
    return FakeUpscaler(model.eval(), ModelContract.of_images(2, 3, Tiling(4, 16, 4)), name)


def legend_of(path):
    with rasterio.open(path) as file:
        return json.loads(file.tags()["GEOMOE_LEGEND"]), file.read()


def some_plan(grid):
    logits = torch.randn(int(np.prod(grid)), 5, generator=torch.Generator().manual_seed(0))
    probabilities = logits.softmax(1)
    weights, chosen = probabilities.max(1, keepdim=True)
    return RoutingPlan(chosen, weights, probabilities, logits, (2, 3), grid)


def test_values_of_a_plan_lie_where_its_rows_came_from():
    plan = some_plan((1, 4, 6))
    values = np.arange(24)
    assert np.array_equal(on_pixels(plan, values, 3, 5), values.reshape(4, 6)[:3, :5]), "padding is dropped"
    whole = on_pixels(some_plan((1,)), np.array([[7], [8]]), 3, 5)
    assert whole.shape == (2, 3, 5)
    assert (whole[0] == 7).all()
    assert (whole[1] == 8).all()


@pytest.mark.parametrize("multiple", [8, 128, None])
def test_squares_have_a_side_that_covers_the_image(multiple):
    # 515 is 5 x 103, which no square of a model has to do with.
    assert cell_of(some_plan((1, 65, 57)), 515, 454, multiple) == 8


@pytest.mark.parametrize("grid", [(1, 24), (2, 4, 6), (2,), (1, 2, 3)])
def test_plans_of_anything_else_are_no_map(grid):
    plan = some_plan(grid)
    assert unit_of(plan, 4, 6) is None
    with pytest.raises(ValueError, match="grid"):
        on_pixels(plan, np.zeros(plan.num_rows), 4, 6)


def test_what_a_model_routes_is_known_without_an_image():
    assert {name: routed_layers(tiny(name)) for name in ("edsr", "swin2_mose", "mfg_hmoe")} == {
        "edsr": 0, "swin2_mose": 3, "mfg_hmoe": 1
    }  # fmt: skip


def test_a_model_that_routes_nothing_is_refused_before_it_works(tmp_path):
    src = write_scene(tmp_path / "s.tif", pixels(3, 20, 30, "uint8"))
    seen = []
    fake = convolutional()
    fake.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2:]))
    for job in (plan_scene, upscale):
        with pytest.raises(GeomoeError, match="fake routes nothing, so there are no experts to map"):
            job(src, tmp_path / "d.tif", model=fake, scale=2, experts=tmp_path / "e.tif")
    assert seen == []
    assert [path.name for path in tmp_path.iterdir()] == ["s.tif"]
    upscale(src, tmp_path / "d.tif", model=fake, scale=2)


def test_one_choice_for_an_image_is_that_of_the_whole_tile(tmp_path):
    src = write_scene(tmp_path / "s.tif", pixels(3, 20, 30, "uint8"))
    model = loaded("swin2_mose")
    upscale(src, tmp_path / "d.tif", model=model, scale=2, experts=tmp_path / "e.tif", tile=16)
    legend, (group, expert, confidence, _) = legend_of(tmp_path / "e.tif")
    assert legend["unit"].startswith("tile: one choice for all")
    assert legend["layer"].startswith("the last of 3 ")
    assert legend["groups"] == [{"group": 1, "experts": 2}]
    assert legend["choices"] == 2
    assert (group == 1).all()
    for rows in (slice(0, 16), slice(16, 20)):
        for columns in (slice(0, 16), slice(16, 30)):
            assert np.unique(expert[rows, columns]).size == 1
            assert np.unique(confidence[rows, columns]).size == 1
    # Both experts are taken, in an order; the first of two cannot count for less than a half.
    assert confidence.min() >= 127


def test_the_legend_counts_the_experts_that_there_are(tmp_path):
    src = write_scene(tmp_path / "s.tif", pixels(3, 20, 30, "uint8"))
    upscale(src, tmp_path / "d.tif", model=nearest(), scale=2, experts=tmp_path / "e.tif")
    legend, _ = legend_of(tmp_path / "e.tif")
    assert legend["unit"] == "pixel"
    assert legend["groups"] == [
        {"group": 1, "experts": 2, "kernel_size": 1},
        {"group": 2, "experts": 3, "kernel_size": 3},
    ]
    other = nearest()
    other.model.config = replace(tiny("mfg_hmoe").config, kernel_sizes=(1, 3, 5))
    upscale(src, tmp_path / "d.tif", model=other, scale=2, experts=tmp_path / "e.tif", overwrite=True)
    legend, _ = legend_of(tmp_path / "e.tif")
    assert "kernel_size" not in legend["groups"][0], "three kernels are not those of two groups"
