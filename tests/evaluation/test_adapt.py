"""Going on to learn in a new place: whom it asks, what it learns from, and what its weights say of it."""

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.evaluation.adapt import adapt, adapt_model, agreement
from geomoe.models import load, read_card
from geomoe.models.registry import build
from geomoe.models.weights import Card, save

SIDE = 8


def masks(*rows: str) -> torch.Tensor:
    """``[D, 1, P]``, a row of pixels for each opinion."""
    return torch.tensor([[pixel == "x" for pixel in row] for row in rows])[:, None]


def test_agreement_at_known_values() -> None:
    assert agreement(masks("....", "....")).item() == 1, "two that are empty agree"
    assert agreement(masks("xx..", "..xx")).item() == 0
    assert agreement(masks("xx..", "xx..")).item() == 1
    assert agreement(masks("xx..", "x...")).item() == 0.5
    assert agreement(masks("xx..", "....")).item() == 0


def test_every_opinion_is_compared_with_every_other() -> None:
    """With one of them as a pivot the order would matter."""
    said = masks("xx..", "xx..", "..xx")
    assert agreement(said).item() == pytest.approx(1 / 3)
    for order in ([2, 0, 1], [1, 2, 0]):
        assert agreement(said[order]).item() == pytest.approx(1 / 3)


class Stub(nn.Module):
    """Two places: one sees what is bright, the other what is bright in the left half alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(4.0))
        self.calls: list[tuple[bool, float]] = []
        self.domain = -1

    def forward(self, x: torch.Tensor, *, valid: torch.Tensor | None) -> torch.Tensor:
        self.calls.append((torch.is_grad_enabled(), float(x.mean())))
        return self.said(x)

    def said(self, x: torch.Tensor) -> torch.Tensor:
        bright = self.weight * (x.mean(1) - 0.5)
        return torch.stack([-bright, bright], 1)

    def guess(self, x: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        return (x.mean((1, 2, 3)) > 0.3).long()

    def settle(self, domain: int) -> None:
        self.domain = domain

    def opinions(self, x: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        left = x.clone()
        left[..., SIDE // 2 :] = 0
        return torch.stack([self.said(x), self.said(left)])


def samples() -> list[tuple[str, dict[str, torch.Tensor]]]:
    """One without anything, one with something on the left, two on the right, of which they say different."""
    found = []
    for name, columns in (("right", (5, 8)), ("empty", (0, 0)), ("left", (0, 3)), ("more", (4, 8))):
        image = torch.full((3, SIDE, SIDE), 0.1)
        image[..., slice(*columns)] = 0.9
        found.append((name, {"image": image}))
    return found


def test_images_on_which_places_agree_are_learned_from_and_no_others() -> None:
    model, given = Stub(), samples()
    found = adapt_model(model, given, rounds=3, learning_rate=0.1)
    assert found.kept == ("empty", "left"), "an image without anything is not thrown away"
    assert found.agreement["empty"] == found.agreement["left"] == 1 > found.agreement["more"]
    learned = {mean for _, mean in model.calls}
    assert learned == {float(image["image"].mean()) for name, image in given if name in found.kept}
    assert model.weight.item() > 4, "it is surer of what it said"
    assert (found.domain, found.votes, model.domain) == (1, 3, 1)


def test_what_is_learned_is_the_focal_loss_of_what_was_said() -> None:
    """A step by hand: of pixels that are nearly sure little is learned, less than of cross-entropy."""
    model, [(name, sample)] = Stub(), samples()[2:3]
    adapt_model(model, [(name, sample)], share=1.0, rounds=1, learning_rate=0.5)
    by_hand = Stub()
    said = by_hand.said(sample["image"][None])
    target = said.detach().argmax(1)
    p = said.softmax(1).gather(1, target[:, None])[:, 0]
    (-((1 - p) ** 2 * p.log()).mean() / 2).backward()
    assert by_hand.weight.grad is not None
    assert model.weight.item() == pytest.approx(4 - 0.5 * by_hand.weight.grad.item(), abs=1e-6)


def test_targets_of_a_round_are_there_before_anything_is_learned_in_it() -> None:
    model = Stub()
    adapt_model(model, samples(), rounds=2)
    assert [learns for learns, _ in model.calls] == [False, False, True, True] * 2


def test_what_is_not_valid_is_not_compared() -> None:
    model, [(_, sample)] = Stub(), samples()[:1]
    valid = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    valid[:, : SIDE // 2] = True
    assert adapt_model(model, [("half", {**sample, "valid": valid})], rounds=1).agreement["half"] == 1


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    small = {"widths": (4, 4), "depths": (1, 1), "heads": (1, 1), "reduce": (1, 1), "bottleneck": (2, 2)}
    model = build("gram", {**small, "decoder": 4, "experts": 2, "domains": ("Kano", "Lima")})
    card = Card("gram", vars(model.config), "unit", {}, "", {"steps": 5}, "segmentation", {"oa": 1.0}, "",
                "2026-01-01", "Apache-2.0", task="segmentation", drift={"any": 1})  # fmt: skip
    save(tmp_path / "gram.safetensors", model, card)
    rng = np.random.default_rng(0)
    (tmp_path / "new").mkdir()
    for number in range(4):
        for name in (f"{number}.png", f"{number}_mask.png"):
            shown = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(shown).save(tmp_path / "new" / name)
    return tmp_path / "gram.safetensors"


def test_adapted_weights_say_that_they_are(weights, tmp_path, capsys) -> None:
    target = tmp_path / "there.safetensors"
    main_of(["adapt", str(weights), str(target), "--data", str(tmp_path / "new"), "--rounds", "2",
             "--learning-rate", "0.1"])  # fmt: skip
    assert "of 4 images look; learned from 2, whose agreement is" in capsys.readouterr().out
    card, before = read_card(target), load(str(weights))
    said = card.recipe["adapted"]
    assert (said["images"], said["kept"], said["from"]) == (4, 2, before.hash)
    assert card.recipe["steps"] == 5
    assert (card.scores, card.drift) == ({}, {}), "they are of other weights"
    after = load(str(target)).model
    assert after.config.domains[int(after.settled)] == said["domain"]
    assert not torch.equal(after.head.weight, before.model.head.weight)


def main_of(args: list[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(args)


def test_the_same_command_gives_the_same_weights(weights, tmp_path) -> None:
    for name in ("one", "two"):
        adapt(weights, tmp_path / f"{name}.safetensors", tmp_path / "new", rounds=1)
    assert read_card(tmp_path / "one.safetensors").hash == read_card(tmp_path / "two.safetensors").hash


@pytest.mark.parametrize(
    ("options", "said"),
    [({"share": 0.0}, "share=0"), ({"rounds": 0}, "rounds=0"), ({"learning_rate": -1.0}, "learning_rate")],
)
def test_bad_options_are_named(weights, tmp_path, options, said) -> None:
    with pytest.raises(GeomoeError, match=said):
        adapt(weights, tmp_path / "x.safetensors", tmp_path / "new", **options)
    assert not (tmp_path / "x.safetensors").exists()


def test_what_cannot_be_adapted(weights, tmp_path) -> None:
    with pytest.raises(GeomoeError, match="is what is adapted"):
        adapt(weights, weights, tmp_path / "new", overwrite=True)
    model = build("unet", {"width": 4, "depth": 1})
    card = Card("unet", vars(model.config), "unit", {}, "", {}, "", {}, "", "", "", task="segmentation")
    save(tmp_path / "unet.safetensors", model, card)
    with pytest.raises(GeomoeError, match="unet does not know several places"):
        adapt(tmp_path / "unet.safetensors", tmp_path / "x.safetensors", tmp_path / "new")
    (tmp_path / "none").mkdir()
    with pytest.raises(GeomoeError, match=r"none.*image"):
        adapt(weights, tmp_path / "x.safetensors", tmp_path / "none")
