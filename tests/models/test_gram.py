"""What a toy of GRAM would not do."""

import math

import pytest
import torch
from torch import nn

import geomoe
from geomoe.models.gram import Adapter, Gram, GramConfig, city, mutual_information
from geomoe.models.weights import Card, load, save
from geomoe.moe import RoutingTrace, mutual_information_loss
from geomoe.moe.plan import RoutingPlan

CITIES = ("Cairo", "Dhaka", "Kano", "Lagos", "Lima", "Pune")
SMALL = {"classes": ("rest", "slum"), "domains": CITIES, "widths": (8, 16), "depths": (1, 2), "heads": (1, 2),
         "reduce": (2, 1), "bottleneck": (2, 3), "experts": 6, "decoder": 8}  # fmt: skip
IMAGES = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(learned: bool = True, **options: object) -> Gram:
    """With adapters as they are once they have learned, or as they begin."""
    torch.manual_seed(0)
    model = Gram(GramConfig(**{**SMALL, **options}))  # type: ignore[arg-type]
    if learned:
        for part in model.modules():
            if isinstance(part, Adapter):
                nn.init.normal_(part[2].weight, std=0.3)
    return model.eval()


def all_of(number: int, count: int = 8) -> torch.Tensor:
    return torch.full((count,), number)


def test_evaluation_repeats_and_an_image_alone_is_what_it_is_in_a_batch() -> None:
    model = made()
    with torch.inference_mode():
        together = model(IMAGES)
        assert torch.equal(model(IMAGES), together)
        alone = torch.cat([model(image) for image in IMAGES.split(1)])
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-5)


def test_there_is_noise_in_training_alone_and_its_width_does_not_grow_with_the_image() -> None:
    model, trace = made(), RoutingTrace()
    model(IMAGES, trace)
    assert all(plan.noise is None for plan in trace)
    model.train()
    for side in (16, 32):
        trace = RoutingTrace()
        model(IMAGES[..., :side, :side], trace)
        assert all(torch.allclose(plan.noise.std, torch.tensor(math.log(2))) for plan in trace)
    again = RoutingTrace()
    model(IMAGES, again)
    assert not torch.equal(again[0].logits[:, 0], trace[0].logits[:, 0])


def test_weights_are_a_softmax_of_the_chosen_logits_and_two_experts_run() -> None:
    model, trace, ran = made(), RoutingTrace(), []
    for part in model.encoder[0].blocks[0].adapters.bank.experts:
        part.register_forward_hook(lambda part, given, out: ran.append(len(out)))
    model(IMAGES, trace, domain=all_of(0))
    assert sum(ran) == 2 * len(IMAGES), "experts that were not chosen do nothing"
    for plan in trace:
        chosen = plan.logits.gather(1, plan.experts)
        torch.testing.assert_close(plan.weights, chosen.softmax(1))
        assert plan.grid == (8,), "a row is an image"


def plan_of(probabilities: torch.Tensor) -> RoutingPlan:
    weights, experts = probabilities.max(1, keepdim=True)
    return RoutingPlan(
        experts, weights, probabilities, probabilities.log(), (probabilities.shape[1],), (len(probabilities),)
    )


def test_mutual_information_at_known_values() -> None:
    cities = torch.arange(6).repeat(4)
    even = torch.full((24, 6), 1 / 6)
    assert mutual_information_loss(plan_of(even), cities).item() == pytest.approx(0, abs=1e-6)
    own = torch.eye(6).repeat(4, 1)
    assert mutual_information_loss(plan_of(own), cities).item() == pytest.approx(-1.7918, abs=1e-4)


def test_mutual_information_reaches_the_gates_of_the_last_stage() -> None:
    model = made().train()
    answers = model.answers(IMAGES, domain=torch.arange(8) % 6)
    mutual_information(answers, IMAGES).backward()
    for block in model.encoder[-1].blocks:
        for gate in block.adapters.router.score.gates:
            assert gate.gate.weight.grad.abs().sum() > 0
    assert -math.log(6) <= answers["information"].item() < 0


def test_gates_see_the_mean_of_the_tokens_that_hold_a_pixel() -> None:
    """The rows that gates are given, by hand; a part of the image is not valid, and more is filled up."""
    model, given = made(), []
    block = model.encoder[0].blocks[0]  # type: ignore[index,union-attr]
    block.adapters.register_forward_hook(lambda part, args, out: given.extend(args[:2]))
    valid = torch.ones(1, 24, 20, dtype=torch.bool)
    valid[:, 12:] = False
    with torch.inference_mode():
        model(IMAGES[:1, :, :24, :20], valid=valid)
    tokens, rows = given  # [1, h, w, C] of 4 x 4 pixels, [1, C]
    torch.testing.assert_close(rows, tokens[:, :3, :5].mean((1, 2)))
    assert tokens.shape[1] > 3, "there are tokens that no gate is to see"


def test_information_is_of_the_last_stage_alone() -> None:
    model, trace = made(), RoutingTrace()
    domain = torch.arange(8) % 6
    found = model.answers(IMAGES, trace, domain=domain)["information"]
    assert len(trace) == 3, "one block and two"
    of_each = [mutual_information_loss(plan, domain, 6) for plan in trace]
    torch.testing.assert_close(found, (of_each[1] + of_each[2]) / 2)
    assert not torch.allclose(found, torch.stack(of_each).mean())


def test_a_batch_of_one_city_teaches_its_gate_alone() -> None:
    model = made()
    model(IMAGES, domain=all_of(2)).square().sum().backward()
    for stage in model.encoder:
        for block in stage.blocks:
            grads = [gate.gate.weight.grad for gate in block.adapters.router.score.gates]
            assert [g is not None and bool(g.any()) for g in grads] == [i == 2 for i in range(6)]


def test_rows_of_several_cities_go_by_the_gates_of_each() -> None:
    model, cities = made(), torch.tensor([0, 5, 2, 2, 1, 3, 4, 0])
    with torch.inference_mode():
        every = model.opinions(IMAGES)
        mixed = model(IMAGES, domain=cities)
    torch.testing.assert_close(mixed, every[cities, torch.arange(8)], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(every[0], every[1])


def test_adapters_begin_as_the_plain_transformer() -> None:
    model = made(learned=False)
    with torch.inference_mode():
        begun = model(IMAGES)
        for stage in model.encoder:
            for block in stage.blocks:
                block.adapters.forward = lambda rows, *args, **options: torch.zeros_like(rows)
        assert torch.equal(model(IMAGES), begun)
    assert not torch.allclose(made()(IMAGES), begun)


def test_whose_gates_are_used_where_no_city_is_given() -> None:
    model = made()
    model.city[-1].bias.data = torch.tensor([0.0, 0, 0, 9, 0, 0])
    with torch.inference_mode():
        assert model.guess(IMAGES).tolist() == [3] * 8
        assert torch.equal(model(IMAGES), model(IMAGES, domain=all_of(3)))
        model.settle(1)
        assert torch.equal(model(IMAGES), model(IMAGES, domain=all_of(1)))
        assert torch.equal(model(IMAGES, domain=all_of(4)), model.opinions(IMAGES)[4]), "what is given counts"
        model.settle(-1)
        assert torch.equal(model(IMAGES), model(IMAGES, domain=all_of(3)))


def test_what_it_is_settled_for_is_kept_with_the_weights(tmp_path) -> None:
    model = made()
    model.settle(4)
    card = Card("gram", vars(model.config), "unit", {}, "", {}, "", {}, "", "", "", task="segmentation")
    save(tmp_path / "w.safetensors", model, card)
    loaded = load(str(tmp_path / "w.safetensors")).model
    with torch.inference_mode():
        assert torch.equal(loaded(IMAGES), model(IMAGES, domain=all_of(4)))


def test_cities_are_learned_by_the_image_and_by_the_features() -> None:
    model, domain = made(), torch.arange(8) % 6
    answers = model.answers(IMAGES, domain=domain)
    by_hand = sum(
        -answers[name].log_softmax(1)[torch.arange(8), domain].mean() for name in ("city", "inside")
    )
    torch.testing.assert_close(city(answers, IMAGES), by_hand)
    for loss in (city, mutual_information):
        with pytest.raises(geomoe.GeomoeError, match="the images of each that is trained on in a folder"):
            loss(model.answers(IMAGES), IMAGES)


def test_what_is_not_valid_is_seen_as_the_mean_and_by_no_gate() -> None:
    model, valid = made(mean=(0.4,)), torch.ones(8, 32, 32, dtype=torch.bool)
    valid[:, :, 16:] = False
    hidden = ~valid[:, None]
    with torch.inference_mode():
        nothing = model(IMAGES.masked_fill(hidden, float("nan")), valid=valid)
        assert nothing.isfinite().all()
        assert torch.equal(nothing, model(IMAGES.masked_fill(hidden, 0.4), valid=valid))


@pytest.mark.parametrize("twin", ["active", "parameters", "frozen"])
def test_twins(twin: str) -> None:
    model = made(twin=twin)
    answers = model.answers(IMAGES, domain=torch.arange(8) % 6)
    assert answers["classes"].shape == (8, 2, 32, 32)
    assert bool(answers["information"]) == (twin == "frozen")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"domains": ("a",)}, "domains=.*two folders"), ({"domains": ("a", "a")}, "each once"),
        ({"domains": (1, 2)}, "expected names"), ({"depths": (1,)}, r"depths=\(1,\): expected one for each"),
        ({"heads": (3, 2)}, "heads=3: expected a divisor of widths=8"),
        ({"twin": "gated"}, "gates of an image add up to 1"), ({"top_k": 9}, "top_k=9"),
    ],
)  # fmt: skip
def test_bad_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model("gram", **{**SMALL, **options})


def test_the_published_size_has_a_mixture_in_each_of_52_blocks() -> None:
    with torch.device("meta"):
        model = Gram(GramConfig())
    blocks = [block for stage in model.encoder for block in stage.blocks]
    assert len(blocks) == 52
    assert {len(block.adapters.bank.experts) for block in blocks} == {12}
    assert [stage.blocks[0].adapters.bank.experts[0][0].out_features for stage in model.encoder] == [
        2,
        4,
        10,
        16,
    ]
