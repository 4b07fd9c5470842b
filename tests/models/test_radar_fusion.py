"""What a toy of the fusion of radars would not do."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geomoe.data.radar import RADARS, TARGETS, radar_sample
from geomoe.errors import GeomoeError
from geomoe.models.radar_fusion import RadarFusion, RadarFusionConfig, divergence, evidential
from geomoe.models.registry import build
from geomoe.moe import RoutingTrace

SMALL = {"classes": ("a", "b", "c"), "sensors": RADARS, "embed_dim": 8, "depth": 1, "heads": 2, "experts": 3}
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def small(**options: object) -> RadarFusion:
    torch.manual_seed(0)
    return RadarFusion(RadarFusionConfig(**{**SMALL, **options}))  # type: ignore[arg-type]


def there(*missing: int) -> torch.Tensor:
    present = torch.ones(len(IMAGES), len(RADARS), 16, 16, dtype=torch.bool)
    present[:, list(missing)] = False
    return present


def silent(model: RadarFusion, *radars: int) -> RadarFusion:
    """Those have no evidence for anything: softplus of very little."""
    for number in radars:
        head = model.radars[number].head
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, -200.0)
    return model


def test_the_size_that_is_assumed() -> None:
    with torch.device("meta"):
        model = build("radar_fusion", {"classes": TARGETS, "sensors": RADARS})
    block = (
        4 * 48 + 4 * (48 * 48 + 48) + 4 * 48 + 4 * (2 * 48 * 96 + 96 + 48)
    )  # norms, attention, router, experts
    radar = 16 * 48 + 48 + 2 * block + 2 * 48 + 49 * 96 + 49 * 6
    assert sum(p.numel() for p in model.parameters()) == 3 * radar


def test_tokens_have_two_experts_of_their_own_radar_and_targets_a_weight_a_radar() -> None:
    trace = RoutingTrace()
    small()(IMAGES, trace)
    assert [plan.grid for plan in trace] == [(4, 4, 4)] * 3 + [(4,)]
    assert [plan.top_k for plan in trace] == [2, 2, 2, 3]
    assert len({id(router) for router in trace.routers}) == 4
    torch.testing.assert_close(trace[-1].gates.sum(1), torch.ones(4))


def test_radars_are_weighed_by_relative_confidence() -> None:
    model, trace = small().eval(), RoutingTrace()
    found = model.answers(IMAGES, trace)
    alpha = found["alpha"]
    strength = alpha.sum(-1)
    confidence = 1 - 3 / strength
    weights = confidence / confidence.sum(1, keepdim=True)
    torch.testing.assert_close(trace[-1].gates, weights)
    expected = (weights[..., None] * alpha / strength[..., None]).sum(1)
    torch.testing.assert_close(found["label"].softmax(1), expected)
    fused = found["fused alpha"]
    torch.testing.assert_close(fused / fused.sum(1, keepdim=True), expected)
    torch.testing.assert_close(fused.sum(1), (weights * strength).sum(1))


def test_an_even_fusion_is_the_mean_of_those_that_are_there() -> None:
    model, trace = small(fusion="even").eval(), RoutingTrace()
    model(IMAGES, trace, there(1))
    torch.testing.assert_close(trace[-1].gates, torch.tensor([[0.5, 0, 0.5]]).expand(4, 3))


def test_where_one_alone_is_sure_of_anything_its_answer_is_given() -> None:
    model = silent(small(), 0, 2).eval()
    found = model.answers(IMAGES)
    alpha = found["alpha"][:, 1]
    torch.testing.assert_close(found["label"].softmax(1), alpha / alpha.sum(1, keepdim=True))
    torch.testing.assert_close(found["fused alpha"], alpha)


def test_where_nobody_is_sure_of_anything_all_classes_are_alike() -> None:
    said = silent(small(), 0, 1, 2).eval()(IMAGES).softmax(1)
    torch.testing.assert_close(said, torch.full((4, 3), 1 / 3))


def test_a_radar_that_is_missing_has_no_weight_whatever_stands_there() -> None:
    model, trace = small().eval(), RoutingTrace()
    expected = model.answers(IMAGES, trace, there(1))
    for rubbish in (float("nan"), 100.0):
        image = IMAGES.clone()
        image[:, 1] = rubbish
        assert torch.equal(model(image, present=there(1)), expected["label"])
    assert torch.equal(trace[-1].gates[:, 1], torch.zeros(4))
    torch.testing.assert_close(trace[-1].gates[:, [0, 2]].sum(1), torch.ones(4))
    assert [int(plan.of_valid().num_rows) for plan in trace] == [64, 0, 64, 4]
    assert (expected["alpha"][:, 1] == 1).all()


def test_a_target_does_not_depend_on_which_radars_others_have() -> None:
    model = small().eval()
    present = there()
    present[1:, 0] = False
    torch.testing.assert_close(model(IMAGES, present=present)[:1], model(IMAGES[:1]))
    assert model(IMAGES, present=there(0, 1, 2)).softmax(1).isfinite().all()


def test_a_missing_radar_learns_nothing() -> None:
    model = small().train()
    found = model.answers(IMAGES, present=there(2))
    truth = torch.tensor([0, 1, 2, 0])
    (evidential(found, truth) + divergence(found, truth)).backward()
    moved = [
        max(float(p.grad.abs().max()) if p.grad is not None else 0.0 for p in radar.parameters())
        for radar in model.radars
    ]
    assert min(moved[:2]) > 0 == moved[2]


def test_evaluation_repeats_and_training_draws_embeddings() -> None:
    model = small()
    assert torch.equal(model.eval()(IMAGES), model(IMAGES))
    model.train()
    assert not torch.equal(model(IMAGES), model(IMAGES))
    for radar in model.radars:
        with torch.no_grad():
            radar.spread.weight[8:] = 0
            radar.spread.bias[8:] = -200.0  # a variance of nothing
    assert torch.equal(model(IMAGES), model.eval()(IMAGES))


def test_the_divergence_of_embeddings_is_that_of_normal_distributions() -> None:
    standard = {
        "mean": torch.zeros(2, 3, 5),
        "log variance": torch.zeros(2, 3, 5),
        "present": torch.ones(2, 3),
    }
    assert divergence(standard, torch.zeros(2)) == 0
    other = {
        **standard,
        "mean": torch.full((2, 3, 5), 0.5),
        "log variance": torch.full((2, 3, 5), math.log(4)),
    }
    normal, unit = torch.distributions.Normal(0.5, 2.0), torch.distributions.Normal(0.0, 1.0)
    expected = 5 * torch.distributions.kl_divergence(normal, unit)
    torch.testing.assert_close(divergence(other, torch.zeros(2)), expected)


def test_bad_options_are_refused() -> None:
    for options, said in (
        ({"heads": 3}, "heads=3"), ({"top_k": 1}, "expected 2 to"), ({"top_k": 4}, "expected 2 to experts=3"),
        ({"fusion": "loud"}, "fusion='loud'"), ({"sensors": {"one": 3}}, "two or more"),
    ):  # fmt: skip
        with pytest.raises(GeomoeError, match=said):
            build("radar_fusion", {**SMALL, **options})


@pytest.mark.slow
def test_after_training_noise_has_little_weight_and_fusion_beats_the_best_radar() -> None:
    def samples(number: int, seed: int, spoilt: float) -> tuple[torch.Tensor, torch.Tensor, list[str | None]]:
        rng = np.random.default_rng(seed)
        noise = [str(rng.choice(list(RADARS))) if rng.random() < spoilt else None for _ in range(number)]
        values = np.stack([radar_sample(i % 6, rng, noise[i]) for i in range(number)])
        return torch.from_numpy(values), torch.arange(number) % 6, noise

    images, labels, _ = samples(800, 0, 0.2)
    model = small(classes=TARGETS, embed_dim=16, heads=4, depth=2, experts=4, mean=(0.2,), std=(0.3,)).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        some = torch.randint(len(images), (64,), generator=generator)
        found, truth = model.answers(images[some]), labels[some]
        (evidential(found, truth) + 1e-3 * divergence(found, truth)).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    trace, clean = RoutingTrace(), RoutingTrace()
    images, labels, noise = samples(600, 1, 1.0)
    with torch.inference_mode():
        found = model.answers(images, trace)
        model(samples(600, 1, 0.0)[0], clean)
    noisy = torch.tensor([list(RADARS).index(str(name)) for name in noise])[:, None]
    of_noise, of_the_same = trace[-1].gates.gather(1, noisy).mean(), clean[-1].gates.gather(1, noisy).mean()
    assert of_noise < min(1 / 3, of_the_same)
    right = [float((said.argmax(1) == labels).float().mean()) for said in found["alpha"].unbind(1)]
    assert float((found["label"].argmax(1) == labels).float().mean()) >= max(right)
    assert F.nll_loss(found["label"], labels) < math.log(6)
