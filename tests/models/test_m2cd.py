"""What a toy of M2CD would not do, and what its released program does wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.layers.sensors import sensor_slices
from geomoe.models.m2cd import M2CD, M2CDConfig, guidance
from geomoe.models.registry import build
from geomoe.models.sparse_ffn import DenseFFN
from geomoe.moe import CosineScore, ExpertBank, FeedForwardExperts, Noise, RoutingTrace
from geomoe.moe.objectives.balance import importance_loss, load_loss
from geomoe.moe.objectives.step import balance_loss
from geomoe.moe.routing.router import Router

SMALL = {"bands": 4, "sensors": {"before": 3, "after": 1}, "widths": (8, 12), "mixed": (1, 2), "blocks": 1,
         "head": 8}  # fmt: skip
ALIKE = {"bands": 6, "sensors": {"before": 3, "after": 3}}


def small(**options: object) -> M2CD:
    torch.manual_seed(0)
    return M2CD(M2CDConfig(**{**SMALL, **options}))  # type: ignore[arg-type]


def pair(bands: int = 4, number: int = 2, side: int = 24) -> Tensor:
    return torch.rand(number, bands, side, side, generator=torch.Generator().manual_seed(1))


def calls(model: M2CD) -> list[Tensor]:
    """What the trunk is shown from now on."""
    seen: list[Tensor] = []
    model.stem.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    return seen


def test_the_published_size_by_hand() -> None:
    with torch.device("meta"):
        model = M2CD(M2CDConfig())

    def conv(inputs: int, outputs: int, side: int = 3) -> int:
        return side**2 * inputs * outputs + outputs + 2 * outputs  # with bias, and norm

    expected = conv(3, 32) + conv(32, 32) + conv(32, 64)
    for inputs, width in zip((64, 64, 128, 256), (64, 128, 256, 512), strict=True):
        expected += conv(inputs, width) + 3 * conv(width, width)
        expected += conv(inputs, width, 1) if inputs != width else 0
        expected += 4 * (2 * 4 * width**2 + 5 * width)  # experts
        projection = min(width // 2, 256)
        expected += width * projection + projection + 4 * projection + 1 + 4 * width  # gate and noise
        expected += conv(2 * width, 256, 1) + 256**2  # head
    expected += 2 * 256 + 2 * 256 + 2
    assert sum(p.numel() for p in model.parameters()) == expected


def test_evaluation_repeats_and_calls_the_trunk_for_two_dates_alone() -> None:
    model = small().eval()
    seen, trace = calls(model), RoutingTrace()
    state = torch.get_rng_state()
    first = model(pair(), trace)
    assert len(seen) == 2
    assert torch.equal(state, torch.get_rng_state()), "nothing is drawn"
    assert torch.equal(first, model(pair()))
    assert len(trace) == 2 * 2
    assert not [name for name in model.answers(pair()) if name.startswith("simulated")]


def test_training_has_a_third_path_whose_plans_count() -> None:
    model = small().train()
    seen, trace = calls(model), RoutingTrace()
    model(pair(), trace)
    assert len(seen) == 3
    assert len(trace) == 3 * 2
    each = [importance_loss(plan) + load_loss(plan) for plan in trace]
    found = balance_loss(trace, {importance_loss: 0.01, load_loss: 0.01})
    torch.testing.assert_close(found, 0.01 * torch.stack(each).sum())


def test_what_is_simulated_is_the_optical_image_with_speckle() -> None:
    """Of the image and not of what normalisation makes of it, with L looks and not a variance of L."""
    model = small(mean=(0.5,), std=(0.25,), looks=(16,)).train()
    seen = calls(model)
    x = torch.full((2, 4, 96, 96), 0.5)
    x[:, :, :, :48] = 0
    model(x)
    optical, radar, simulated = seen
    assert torch.equal(optical[..., :48], simulated[..., :48]), "dark stays dark, wherever the mean is"
    gain = (simulated[..., 48:] * 0.25 + 0.5) / 0.5
    assert gain.mean() == pytest.approx(1, rel=0.01)
    assert gain.var() == pytest.approx(1 / 16, rel=0.03)
    assert torch.equal(radar[:, 0], radar[:, 2]), "one band is read as three that are alike"
    other = small(optical="second").train()
    seen = calls(other)
    other(x)
    assert torch.equal(seen[2][..., :48], seen[1][..., :48])
    assert not torch.equal(seen[2], seen[1])


def test_every_image_has_looks_of_its_own() -> None:
    model = small(mean=(0.0,), std=(1.0,), looks=(1, 16)).train()
    seen = calls(model)
    model(torch.ones(12, 4, 32, 32))
    spread = seen[2].var((1, 2, 3))
    assert (spread > 0.5).any()
    assert (spread < 0.1).any()


def test_the_teacher_gets_no_gradient_of_the_guidance() -> None:
    model = small().train()
    answers = model.answers(pair())
    names = [name for name in answers if name != "classes"]
    assert names == [f"{path} {stage}" for path in ("first", "second", "simulated") for stage in (1, 2)]
    for name in names:
        answers[name].retain_grad()
    loss = guidance(answers, torch.zeros(()))
    loss.backward()
    by_hand = sum(
        (answers[f"{date} {stage}"] - answers[f"simulated {stage}"]).abs().mean()
        for stage in (1, 2)
        for date in ("first", "second")
    )
    torch.testing.assert_close(loss, by_hand)
    for stage in (1, 2):
        assert answers[f"simulated {stage}"].grad is None
        assert answers[f"first {stage}"].grad.abs().any()  # type: ignore[union-attr]
        assert answers[f"second {stage}"].grad.abs().any()  # type: ignore[union-attr]


def test_a_stage_without_experts_is_not_guided() -> None:
    model = small(mixed=(2,)).train()
    assert list(model.mixtures) == ["2"]
    assert list(model.answers(pair())) == ["classes", "first 2", "second 2", "simulated 2"]


def test_swapping_the_dates_swaps_their_features() -> None:
    model = small(**ALIKE).eval()
    x = pair(6)
    seen: list[Tensor] = []
    model.head.register_forward_hook(lambda _, given, __: seen.extend(given[0]))
    there = model.answers(x)
    back = model.answers(torch.cat([x[:, 3:], x[:, :3]], 1))
    for stage in (1, 2):
        assert torch.equal(there[f"first {stage}"], back[f"second {stage}"])
        assert torch.equal(there[f"second {stage}"], back[f"first {stage}"])
    for one, other in zip(seen[:2], seen[2:], strict=True):
        halves = one.chunk(2, 1)
        assert torch.equal(torch.cat(halves[::-1], 1), other)


def test_the_mixture_takes_the_place_of_the_map() -> None:
    model = small().eval()
    with torch.no_grad():
        for bank in (m for m in model.modules() if isinstance(m, FeedForwardExperts)):
            bank.down.zero_()
            bank.down_bias.fill_(2.0)  # type: ignore[union-attr]
    answers = model.answers(pair())
    assert torch.allclose(answers["first 1"], torch.tensor(2.0)), "nothing of what went in is added"


def test_the_gate_is_cosine_with_noise_that_never_vanishes() -> None:
    model = small(widths=(8, 1024), head=4)
    for layer, (width, projection) in zip(model.mixtures.values(), ((8, 4), (1024, 256)), strict=True):
        router = layer.moe.router
        assert isinstance(router, Router)
        score, noise = router.score, router.noise
        assert isinstance(score, CosineScore)
        assert score.project.weight.shape == (projection, width)
        assert score.project.bias is not None
        assert (score.log_temperature.exp().item(), score.coldest) == (0.5, 0.01)
        assert isinstance(noise, Noise)
        with torch.no_grad():
            noise.width.weight.fill_(-1e3)
            assert torch.equal(noise(torch.ones(1, width), torch.zeros(1, 4)), torch.full((1, 4), 0.01))
    rows = torch.rand(5, 8)
    router = model.mixtures["1"].moe.router  # type: ignore[union-attr]
    shown = F.normalize(router.score.project(rows), dim=1) @ F.normalize(router.score.embedding, dim=1).T
    plan = router.eval()(rows)
    torch.testing.assert_close(plan.logits, 2 * shown)
    torch.testing.assert_close(plan.weights, plan.logits.topk(2).values.softmax(1))
    assert plan.noise is None


def test_cells_of_one_image_take_different_experts_and_dates_share_them() -> None:
    model, trace = small().eval(), RoutingTrace()
    model(pair(side=48), trace)
    assert trace[0].grid == (2, 12, 12)
    assert len(trace[0].experts[:144].unique(dim=0)) > 1
    first, second = trace.routers[:2], trace.routers[2:]
    assert first == second


def test_the_head_is_one_convolution_of_all_stages() -> None:
    """Before maps are resized, which is the same."""
    model = small()
    maps = [torch.rand(1, 16, 6, 6), torch.rand(1, 24, 3, 3)]
    head = model.head
    resized = [
        F.interpolate(stage(y), (12, 12), mode="bilinear") for stage, y in zip(head.stages, maps, strict=True)
    ]
    whole = torch.cat([join.weight for join in head.joins], 1)  # type: ignore[arg-type]
    by_hand = head.out(F.relu(head.norm(F.conv2d(torch.cat(resized, 1), whole))))
    torch.testing.assert_close(head(maps), by_hand)


def test_the_simulated_radar_comes_in_when_the_rest_has_been_trained() -> None:
    model = small().train()
    assert [stage.name for stage in model.stages] == ["experts", "guided"]
    model.begin("experts")
    model.train()
    seen = calls(model)
    loss = guidance(model.answers(pair()), torch.zeros(()))
    assert (len(seen), loss.item()) == (2, 0.0)
    model.begin("guided")
    assert guidance(model.answers(pair()), torch.zeros(())) > 0
    assert len(seen) == 5
    assert small(optical="none").stages == ()
    assert len(small(optical="none").train().answers(pair())) == 1 + 2 * 2


def test_what_a_date_lacks_changes_nothing_and_is_not_routed() -> None:
    model = small().eval()
    x = pair()
    present = torch.ones(2, 2, 24, 24, dtype=torch.bool)
    present[:, 1, :, 8:] = False
    bands = list(sensor_slices(model.config.sensors).values())[1]
    other = x.clone()
    other[:, bands, :, 8:] = torch.nan
    trace = RoutingTrace()
    found = model(other, trace, present=present)
    assert found.isfinite().all()
    assert torch.equal(found, model(x, present=present))
    assert trace[0].valid is None or trace[0].valid.all(), "the first date is whole"
    assert trace[2].valid is not None
    assert trace[2].valid.sum() == 2 * 6 * 2
    model.train()
    assert all(answer.isfinite().all() for answer in model.answers(other, present=present).values())


def test_twins() -> None:
    size = {twin: sum(p.numel() for p in small(twin=twin).parameters()) for twin in ("none", "active",
            "parameters", "frozen")}  # fmt: skip
    banks = [m for m in small().modules() if isinstance(m, ExpertBank)]
    idle = sum(bank.num_parameters for bank in banks) / 2
    assert size["active"] == pytest.approx(size["none"] - idle, rel=0.01)
    assert size["parameters"] == pytest.approx(size["none"], rel=0.01)
    assert size["frozen"] == size["none"]
    dense = small(twin="active")
    assert all(isinstance(layer, DenseFFN) for layer in dense.mixtures.values())
    assert dense.contract == small().contract
    routers = [m for m in small(twin="frozen").modules() if isinstance(m, Router)]
    assert not any(p.requires_grad for router in routers for p in router.parameters())
    with pytest.raises(GeomoeError, match=r"twin='gated': .* add up to 1"):
        build("m2cd", {**SMALL, "twin": "gated"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 1}, "top_k=1: expected 2 to experts=4"), ({"mixed": (3,)}, r"mixed=.*from 1 to 2"),
        ({"optical": "third"}, "optical='third'"), ({"looks": (0,)}, "looks="),
        ({"sensors": {"a": 1, "b": 1, "c": 2}}, "expected two, one for each date"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(GeomoeError, match=said):
        build("m2cd", {**SMALL, **options})
