import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from geomoe import GeomoeError
from geomoe.data.degradation import upsample_bicubic
from geomoe.evaluation.evaluate import evaluate
from geomoe.evaluation.export import export
from geomoe.models import read_card
from geomoe.models.contract import ModelContract
from geomoe.models.weights import save
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


def test_unusable_folders_are_refused(tmp_path):
    with pytest.raises(GeomoeError, match="holds no image"):
        evaluate(Fake(), tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    with pytest.raises(GeomoeError, match="too small to score"):
        evaluate(Fake(), tmp_path)
    Image.new("RGB", (1, 9)).save(tmp_path / "x.png")
    with pytest.raises(GeomoeError, match="too small for a scale"):
        evaluate(Fake(), tmp_path)


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
