"""Networks that build on a frozen ViT, such as Base-T: they begin with its weights and keep them."""

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

import geomoe
from geomoe import GeomoeError
from geomoe.models import registry
from geomoe.models.label import Head, label_contract
from geomoe.models.options import LabelConfig
from geomoe.models.registry import register
from geomoe.models.vit import frozen_base
from geomoe.models.weights import Card, load_as, save

TINY = {"patch": 4, "embed_dim": 12, "depth": 2, "heads": 2}
CLASSES = ("field", "river", "town")


@dataclass(frozen=True)
class HolderConfig(LabelConfig):
    HOLDS: ClassVar = "base"

    adapters: tuple[int, ...] | None = None


class Holder(nn.Module):
    keeps_start = True

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.base = frozen_base(config, {**TINY, "adapters": config.adapters})
        self.head = Head(config, 12)
        self.contract = label_contract(config, 12)

    def forward(self, x, trace=None):
        return self.head(self.base(x, trace))


@pytest.fixture(autouse=True)
def registered():
    register("holder", Holder, HolderConfig, gives="label")
    yield
    del registry._ENTRIES["holder"]


def written(path, name, **options):
    torch.manual_seed(1)
    model = geomoe.create_model(name, **options)
    card = Card(name, asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "")
    save(path, model, replace(card, task="masked_autoencoding"))
    return model


@pytest.mark.parametrize("adapters", [None, (2, 2, 4)])
def test_the_part_that_is_held_begins_with_its_weights_and_keeps_them(tmp_path, adapters):
    path = tmp_path / "base.safetensors"
    base = written(path, "base_t", **TINY)
    options = {"classes": CLASSES, "mean": (0.3,), "std": (0.1,), "adapters": adapters}
    model = load_as(str(path), "holder", options).model
    assert model.base.config.mean == (0.3,), "of the new data"
    state = model.base.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in base.state_dict().items())
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in learning if ".moe." not in name} == {"head.linear.weight", "head.linear.bias"}
    assert any(".moe." in name for name in learning) == (adapters is not None)
    x = torch.rand(2, 3, 8, 8)
    base.normalise.mean.fill_(0.3), base.normalise.std.fill_(0.1)
    with torch.inference_mode():
        torch.testing.assert_close(model.base(x), base(x))  # adapters begin at nothing


def test_weights_of_another_kind_or_shape_are_refused(tmp_path):
    written(tmp_path / "other.safetensors", "unet", width=4, depth=1)
    with pytest.raises(GeomoeError, match="holds weights of unet, not of holder"):
        load_as(str(tmp_path / "other.safetensors"), "holder", {"classes": CLASSES})
    written(tmp_path / "heads.safetensors", "base_t", **{**TINY, "heads": 3})
    with pytest.raises(GeomoeError, match="were not trained with heads=2"):
        load_as(str(tmp_path / "heads.safetensors"), "holder", {"classes": CLASSES})


def test_a_vit_begins_with_weights_that_knew_no_classes(tmp_path):
    base = written(tmp_path / "base.safetensors", "base_t", **TINY)
    options = {**TINY, "classes": CLASSES, "mean": (0.3,)}
    model = load_as(str(tmp_path / "base.safetensors"), "base_t", options).model
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in base.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 3)


def test_an_option_that_a_vit_does_not_have_is_named():
    with pytest.raises(GeomoeError, match="base_t has no option 'rank'"):
        frozen_base(HolderConfig(), {"rank": 4})


def test_base_t_ships_as_a_part_that_others_may_hold():
    loaded = geomoe.load("base_t")
    assert loaded.path.stat().st_size < 3e6
    assert "public domain" in loaded.card.data["source"]
    assert loaded.card.task == "masked_autoencoding"
    for size in (64, 24, 50):
        features = loaded.model(torch.rand(2, 3, size, size))
        assert features.shape == (2, 96)
        assert features.isfinite().all()
    model = load_as("base_t", "base_t", {"classes": CLASSES, "adapters": (4, 8)}).model
    assert torch.equal(model.embed.weight, loaded.model.embed.weight)


def test_base_t_has_the_size_that_its_page_says():
    """By hand: squares of 8 x 8 x 3, four blocks of width 96, the last norm."""
    block = 12 * 96**2 + (3 + 1 + 4 + 1) * 96 + 4 * 96
    with torch.device("meta"):
        model = geomoe.create_model("base_t")
    assert sum(p.numel() for p in model.parameters()) == 192 * 96 + 96 + 4 * block + 2 * 96 == 466_080
