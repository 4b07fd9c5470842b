import math

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from geomoe import GeomoeError
from geomoe.data.super_resolution.degradation import interpolated
from geomoe.evaluation.export import export
from geomoe.evaluation.precision import Loss
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.models import read_card
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.weights import load, save
from tests.models.test_models import tiny
from tests.models.test_weights import card_of


class Bicubic(nn.Module):
    def forward(self, x, trace=None):
        return interpolated(x, 2)


class Fake:
    name, hash, model, contract = "bicubic", "0", Bicubic(), ModelContract.of_images(2, 3, Tiling(1, 64, 0))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/1", "a/2", "b/3"):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
        small.resize((41, 33), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "images"


def test_bicubic_gains_nothing_over_bicubic(folder):
    found = evaluate(Fake(), folder)
    assert found.overall.gain("psnr") == 0
    assert {name: s.items for name, s in found.by_class.items()} == {"a": 2, "b": 1}
    a, b = (found.by_class[name].values["psnr"] for name in "ab")
    assert psnr(found) == pytest.approx((2 * a + b) / 3)
    assert psnr(found) == pytest.approx(np.mean([scores["psnr"] for scores in found.by_item.values()]))
    assert math.isfinite(psnr(found))


def psnr(found):
    return found.overall.values["psnr"]


def test_the_protocol_and_degradation_matter(folder):
    base = psnr(evaluate(Fake(), folder))
    assert psnr(evaluate(Fake(), folder, protocol="hsenet")) != base
    assert psnr(evaluate(Fake(), folder, degradation="bilinear_aliased")) != base


def test_further_metrics_stand_beside_those_that_are_always_there(folder):
    plain, more = evaluate(Fake(), folder), evaluate(Fake(), folder, metrics=["scc", "ergas", "sam"])
    assert list(plain.as_dict()["overall"]["scores"]) == ["psnr", "ssim"]
    assert list(more.overall.values) == ["psnr", "ssim", "ergas", "sam", "scc"]
    assert psnr(more) == psnr(plain)
    assert more.overall.values == more.overall.baseline
    assert (more.overall.items, more.overall.defined) == (3, {})
    assert more.as_dict()["by_class"]["a"]["items"] == 2
    assert 0 < more.overall.values["scc"] < 1
    classes = [more.by_class[name].values["ergas"] for name in "ab"]
    assert more.overall.values["ergas"] == pytest.approx((2 * classes[0] + classes[1]) / 3)


class Blocks(nn.Module):
    """Gives its input back exactly where pixels of a block are averaged."""

    def forward(self, x, trace=None):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_consistency_uses_the_degradation_of_the_input(folder):
    class Repeats(Fake):
        model = Blocks()

    def score(degradation):
        found = evaluate(Repeats(), folder, metrics=["consistency"], degradation=degradation)
        return found.overall.values["consistency"]

    # Without antialiasing, bilinear at 1/2 is the mean of two by two: the input comes back, to 8 bits.
    assert score("bilinear_aliased") == 100
    assert score("bilinear") < 60
    for path in folder.rglob("*.png"):
        path.unlink()
    values = np.random.default_rng(0).random((3, 30, 32), dtype=np.float32)
    profile = {"driver": "GTiff", "width": 32, "height": 30, "count": 3, "dtype": "float32"}
    with rasterio.open(folder / "a" / "float.tif", "w", **profile) as file:
        file.write(values)
    assert score("bilinear_aliased") == 100, "inputs made of floats are not rounded, so nothing else may be"


def test_conserved_means_are_the_input_whatever_the_model_draws(folder):
    class Wild(Fake):
        model = nn.Sequential(Blocks(), nn.Conv2d(3, 3, 3, padding=1))

    with torch.no_grad():
        Wild.model[1].weight.normal_(generator=torch.Generator().manual_seed(0))

    def score(degradation, conserve):
        found = evaluate(Wild(), folder, metrics=["consistency"], degradation=degradation, conserve=conserve)
        assert found.as_dict()["conserve"] is conserve
        return found.overall

    plain, kept = (score("average", on) for on in (False, True))
    assert kept.values["consistency"] == 100
    assert plain.values["consistency"] < 30
    assert kept.baseline == plain.baseline
    assert score("bilinear", True).values["consistency"] < 60, "another kernel is not given back"


def test_images_on_which_a_metric_is_undefined_are_left_out_and_counted(folder):
    Image.new("RGB", (41, 33)).save(folder / "b" / "black.png")
    found = evaluate(Fake(), folder, metrics=["ergas", "sam", "scc"])
    assert found.overall.items == 4
    assert found.overall.defined == {"ergas": 3, "sam": 3, "scc": 3}
    assert found.by_item["b/black.png"].keys() == {"psnr", "ssim"}
    for name in ("a/1", "a/2", "b/3"):
        (folder / f"{name}.png").unlink()
    nowhere = evaluate(Fake(), folder, metrics=["sam"]).overall
    assert ("sam" in nowhere.values, nowhere.defined) == (False, {"sam": 0})


def test_an_unknown_metric_lists_those_there_are(folder):
    with pytest.raises(GeomoeError, match="no metric is called 'lpips'; there are: psnr, ssim, ergas"):
        evaluate(Fake(), folder, metrics=["psnr", "lpips"])


def test_unusable_folders_are_refused(tmp_path):
    with pytest.raises(GeomoeError, match="holds no image"):
        evaluate(Fake(), tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    with pytest.raises(GeomoeError, match="too small to score"):
        evaluate(Fake(), tmp_path)
    Image.new("RGB", (1, 9)).save(tmp_path / "x.png")
    with pytest.raises(GeomoeError, match="too small for a scale"):
        evaluate(Fake(), tmp_path)


def test_bfloat16_is_scored_beside_float32(folder, tmp_path):
    torch.manual_seed(0)
    model = tiny("mfg_hmoe", base="bicubic")
    save(tmp_path / "w.safetensors", model, card_of(model))
    loaded = load(str(tmp_path / "w.safetensors"))
    plain, half = (evaluate(loaded, folder, precision=precision) for precision in ("float32", "bfloat16"))
    assert plain.loss is None
    assert (plain.precision, half.precision) == ("float32", "bfloat16")
    assert half.loss.loss == pytest.approx(psnr(plain) - psnr(half), abs=2e-5)
    assert half.loss.low <= half.loss.loss <= half.loss.high
    assert 0 < half.loss.largest < 10
    assert evaluate(Fake(), folder, precision="bfloat16").loss == Loss(0, 0, 0, 0)  # interpolation alone


def test_rounded_weights_do_not_say_what_was_measured_of_others(folder, tmp_path):
    model = tiny("mfg_hmoe")
    save(tmp_path / "w.safetensors", model, card_of(model, bfloat16={"loss": 0.001}))
    for half in (True, False):
        card = export(
            tmp_path / "w.safetensors", tmp_path / "o.safetensors", folder, half=half, overwrite=True
        )
        assert bool(card.bfloat16) != half


def test_export_puts_the_scores_on_the_card(folder, tmp_path):
    torch.manual_seed(0)
    model = tiny("mfg_hmoe")
    save(tmp_path / "w.safetensors", model, card_of(model, scores={"psnr": 1.0, "scored": "validation"}))
    card = export(tmp_path / "w.safetensors", tmp_path / "out.safetensors", folder)
    assert card == read_card(tmp_path / "out.safetensors")
    assert card.scores["scored"] == "all 3 images of a folder"
    assert card.scores["validation"] == {"psnr": 1.0, "scored": "validation"}
    assert card.scores["gain"] == pytest.approx(
        card.scores["psnr"] - card.scores["baseline"]["psnr"], abs=1e-3
    )
    with pytest.raises(GeomoeError, match="--overwrite"):
        export(tmp_path / "w.safetensors", tmp_path / "out.safetensors", folder)


def test_weights_of_mixed_inputs_are_exported_by_the_default_degradation(folder, tmp_path):
    model = tiny("mfg_hmoe")
    save(tmp_path / "w.safetensors", model, card_of(model, degradation="mixed"))
    card = export(tmp_path / "w.safetensors", tmp_path / "out.safetensors", folder)
    assert card.degradation == "mixed"
    assert [one.degradation for one in card.evaluations] == ["bilinear"]
    with pytest.raises(GeomoeError, match="made in several ways in training"):
        evaluate(load(str(tmp_path / "w.safetensors")), folder, degradation="mixed")


def test_export_in_half_precision_scores_what_it_writes(folder, tmp_path):
    torch.manual_seed(0)
    model = tiny("mfg_hmoe")
    save(tmp_path / "w.safetensors", model, card_of(model))
    card = export(tmp_path / "w.safetensors", tmp_path / "half.safetensors", folder, half=True)
    assert {t.dtype for t in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    assert card.recipe["stored"] == "float16"
    loaded = load(str(tmp_path / "half.safetensors"))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert psnr(evaluate(loaded, folder)) == pytest.approx(card.scores["psnr"], abs=1e-4)


def test_weights_beyond_half_precision_are_refused_and_nothing_is_written(tmp_path):
    model = tiny("mfg_hmoe")
    next(model.parameters()).data[0] = 1e6
    with pytest.raises(GeomoeError, match="beyond float16"):
        save(tmp_path / "w.safetensors", model, card_of(model), half=True)
    assert not list(tmp_path.iterdir())
