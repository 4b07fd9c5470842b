import math

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from geomoe import GeomoeError
from geomoe.data.degradation import upsample_bicubic
from geomoe.evaluation.evaluate import evaluate
from geomoe.evaluation.export import export
from geomoe.evaluation.precision import Loss
from geomoe.models import read_card
from geomoe.models.contract import ModelContract
from geomoe.models.weights import load, save
from tests.models.test_models import tiny
from tests.models.test_weights import card_of


class Bicubic(nn.Module):
    def forward(self, x, trace=None):
        return upsample_bicubic(x, 2)


class Fake:
    name, hash, model, contract = "bicubic", "0", Bicubic(), ModelContract(2, 3, 1, 64, 0)


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
    assert found.overall.gain == 0
    assert {name: s.images for name, s in found.by_class.items()} == {"a": 2, "b": 1}
    assert found.overall.psnr == pytest.approx((2 * found.by_class["a"].psnr + found.by_class["b"].psnr) / 3)
    assert math.isfinite(found.overall.psnr)


def test_the_protocol_and_degradation_matter(folder):
    base = evaluate(Fake(), folder).overall.psnr
    assert evaluate(Fake(), folder, protocol="hsenet").overall.psnr != base
    assert evaluate(Fake(), folder, degradation="bilinear_aliased").overall.psnr != base


def test_further_metrics_stand_beside_those_that_are_always_there(folder):
    plain, more = evaluate(Fake(), folder), evaluate(Fake(), folder, metrics=["scc", "ergas", "sam"])
    assert "further" not in plain.as_dict()["overall"]
    assert more.overall.psnr == plain.overall.psnr
    assert list(more.overall.further) == ["ergas", "sam", "scc"]
    for found in more.overall.further.values():
        assert found.value == found.bicubic
        assert found.images == 3
    assert more.as_dict()["by_class"]["a"]["further"]["sam"]["images"] == 2
    assert 0 < more.overall.further["scc"].value < 1
    classes = [more.by_class[name].further["ergas"].value for name in "ab"]
    assert more.overall.further["ergas"].value == pytest.approx((2 * classes[0] + classes[1]) / 3)


class Blocks(nn.Module):
    """Gives its input back exactly where pixels of a block are averaged."""

    def forward(self, x, trace=None):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_consistency_uses_the_degradation_of_the_input(folder):
    class Repeats(Fake):
        model = Blocks()

    def score(degradation):
        found = evaluate(Repeats(), folder, metrics=["consistency"], degradation=degradation)
        return found.overall.further["consistency"].value

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
    assert kept.further["consistency"].value == 100
    assert plain.further["consistency"].value < 30
    assert (kept.bicubic_psnr, kept.further["consistency"].bicubic) == (
        plain.bicubic_psnr,
        plain.further["consistency"].bicubic,
    )
    assert score("bilinear", True).further["consistency"].value < 60, "another kernel is not given back"


def test_images_on_which_a_metric_is_undefined_are_left_out_and_counted(folder):
    Image.new("RGB", (41, 33)).save(folder / "b" / "black.png")
    found = evaluate(Fake(), folder, metrics=["ergas", "sam", "scc"])
    assert found.overall.images == 4
    assert {f.images for f in found.overall.further.values()} == {3}
    for name in ("a/1", "a/2", "b/3"):
        (folder / f"{name}.png").unlink()
    assert evaluate(Fake(), folder, metrics=["sam"]).overall.further["sam"].value is None


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
    assert half.loss.loss == pytest.approx(plain.overall.psnr - half.overall.psnr, abs=2e-5)
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
    assert card.scores["gain"] == pytest.approx(card.scores["psnr"] - card.scores["bicubic_psnr"], abs=1e-3)
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
    assert evaluate(loaded, folder).overall.psnr == pytest.approx(card.scores["psnr"], abs=1e-4)


def test_weights_beyond_half_precision_are_refused_and_nothing_is_written(tmp_path):
    model = tiny("mfg_hmoe")
    next(model.parameters()).data[0] = 1e6
    with pytest.raises(GeomoeError, match="beyond float16"):
        save(tmp_path / "w.safetensors", model, card_of(model), half=True)
    assert not list(tmp_path.iterdir())
