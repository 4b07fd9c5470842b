"""What a toy of Kong's fusion would not do."""

import math

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.models.kong_fusion import FUSIONS, KongFusion, KongFusionConfig, candidate_sets, candidates
from geomoe.models.registry import build
from geomoe.moe import RoutingPlan, RoutingTrace, even_entropy_loss

SMALL = {
    "bands": 7,
    "classes": ("a", "b", "c"),
    "sensors": {"spectra": 6, "height": 1},
    "patch": 5,
    "band_heads": 2,
    "mixed": 3,
    "width": 8,
    "heads": 2,
    "unlabelled": 6,
}


def small(**options: object) -> KongFusion:
    torch.manual_seed(0)
    return KongFusion(KongFusionConfig(**{**SMALL, **options}))  # type: ignore[arg-type]


def plan_of(gates: torch.Tensor) -> RoutingPlan:
    number, experts = gates.shape
    order = torch.arange(experts).expand(number, experts)
    return RoutingPlan(order, gates, gates, gates.log(), (experts,), (number,))


def test_the_published_size_as_it_is_assumed() -> None:
    options = {
        "bands": 145,
        "sensors": {"hyperspectral": 144, "lidar": 1},
        "classes": tuple(map(str, range(15))),
    }
    with torch.device("meta"):
        model = build("kong_fusion", options)
    mixtures = 128 * 144
    features = (9 * 128 * 64 + 64) + (9 * 64 + 64) + 2 * (9 * 64 * 64 + 64) + 4 * 128
    ways = 2 * (128 * 64 + 64) + (4 * 64 * 64 + 4 * 64)
    gate, head = 128 * 5, 64 * 15 + 15
    assert sum(p.numel() for p in model.parameters()) == mixtures + features + ways + gate + head


def test_mixtures_of_bands_stay_means_at_every_step() -> None:
    model = small().train()
    optimiser = torch.optim.SGD(model.parameters(), 100.0)
    generator = torch.Generator().manual_seed(0)
    before = model.mixture.weight.detach().clone()
    for _ in range(3):
        weight = model.mixture.weight
        assert (weight >= 0).all()
        torch.testing.assert_close(weight.sum(1), torch.ones(6))
        said = model(torch.rand(1, 7, 3, 3, generator=generator))
        optimiser.zero_grad()
        said.softmax(1)[:, 0].log().mean().neg().backward()
        optimiser.step()
    assert (model.mixture.weight - before).abs().max() > 1e-3
    flat = torch.full((1, 6, 2, 2), 0.7)
    torch.testing.assert_close(model.mixture(flat), torch.full((1, 6, 2, 2), 0.7))


def test_heads_begin_as_sharp_as_they_are_many() -> None:
    torch.manual_seed(0)
    weight = small(bands=201, sensors={"spectra": 200, "height": 1}, band_heads=4, mixed=32).mixture.weight
    entropy = torch.special.entr(weight).sum(1).view(4, 32).mean(1)
    assert (entropy.diff() < -0.3).all()


@pytest.mark.parametrize("name", FUSIONS)
def test_a_gate_of_one_is_that_way_of_joining(name: str) -> None:
    model = small().eval()
    number = list(FUSIONS).index(name)
    torch.manual_seed(1)
    pair = torch.randn(4, 2, 8, 5, 5)
    one_hot = torch.nn.functional.one_hot(torch.tensor([number] * 4), 5).float()
    h, l = pair.unbind(1)  # noqa: E741
    way = model.fusion.bank.experts[number]
    tokens = [x.flatten(2).transpose(1, 2) for x in (h, l)]
    expected = {
        "sum": lambda: h + l,
        "concatenation": lambda: (
            torch.einsum("oc,nchw->nohw", way.join.weight[:, :, 0, 0], pair.flatten(1, 2))
            + way.join.bias[:, None, None]
        ),
        "product": lambda: h * l,
        "attention": lambda: way.attention(tokens[0], tokens[1], tokens[1])[0].transpose(1, 2).view_as(h),
        "gated": lambda: l + way.share(pair.flatten(1, 2)).sigmoid() * (h - l),
    }[name]()
    torch.testing.assert_close(model.fusion.carry_out(pair, plan_of(one_hot)), expected)


def test_nothing_times_anything_is_nothing() -> None:
    model = small().eval()
    pair = torch.randn(2, 2, 8, 5, 5)
    pair[:, 1] = 0
    only = torch.tensor([[0.0, 0, 1, 0, 0]]).expand(2, 5)
    assert not model.fusion.carry_out(pair, plan_of(only)).any()


def test_the_entropy_is_least_where_all_are_used_and_each_row_is_decided() -> None:
    assert even_entropy_loss(plan_of(torch.eye(5))) == pytest.approx(-math.log(5))
    assert even_entropy_loss(plan_of(torch.eye(5)[[2] * 5])) == pytest.approx(0, abs=1e-6)
    even = plan_of(torch.full((5, 5), 0.2))
    assert even_entropy_loss(even) == pytest.approx(-0.5 * math.log(5))


def test_the_entropy_reaches_the_gate_where_experts_are_left_out() -> None:
    model, trace = small().train(), RoutingTrace()
    model(torch.rand(1, 7, 4, 4), trace)
    assert trace[0].top_k == 3
    even_entropy_loss(trace[0]).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.fusion.router.parameters())


def test_candidates_are_pruned_inside_a_sample_and_between_samples() -> None:
    near = torch.zeros(6, 2)
    one = torch.tensor([[0.5, 0.4, 0.1]] * 6)
    assert candidate_sets(one, one, near).tolist() == [[True, True, False]] * 6
    other = torch.tensor([[0.4, 0.5, 0.1]] * 6)
    assert candidate_sets(one, other, near).all(), "none is left, so that any may be right"
    mixed = one.clone()
    mixed[0] = torch.tensor([0.5, 0.1, 0.4])
    assert candidate_sets(mixed, mixed, near)[0].tolist() == [True, False, False], (
        "no neighbour has the third"
    )
    alone = torch.tensor([[0.5, 0.4, 0.1]])
    assert candidate_sets(alone, alone, near[:1]).tolist() == [[True, True, False]]


def test_neighbours_are_those_that_are_near() -> None:
    one = torch.tensor([[0.8, 0.1, 0.1]] * 6 + [[0.1, 0.8, 0.1]] * 6)
    places = torch.tensor([[0.0]] * 6 + [[9.0]] * 6) + 0.01 * torch.arange(12)[:, None]
    kept = candidate_sets(one, one, places)
    assert kept.tolist() == [[True, False, False]] * 6 + [[False, True, False]] * 6


def test_where_any_class_may_be_right_nothing_is_learned() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, requires_grad=True)
    answers = {"one view": logits, "other view": -logits, "features": torch.zeros(6, 2)}
    ranks_apart = {**answers, "other view": logits.detach().roll(1, 1) * 0 + torch.tensor([0.0, 0, 0])}
    loss = candidates(ranks_apart, torch.zeros(6))
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    sure = torch.tensor([[4.0, 0, 0]] * 6)
    found = candidates({"one view": sure, "other view": sure, "features": torch.zeros(6, 2)}, torch.zeros(6))
    assert float(found) == pytest.approx(-math.log(float(sure[0].softmax(0)[0])))
    none = {"one view": sure[:0], "other view": sure[:0], "features": torch.zeros(0, 2)}
    assert candidates(none, torch.zeros(0)) == 0


def test_candidates_are_looked_for_where_no_class_is_asked_for() -> None:
    model = small().train()
    x = torch.rand(2, 7, 6, 6)
    wanted = torch.zeros(2, 6, 6, dtype=torch.bool)
    wanted[:, 2, 2] = True
    found = model.answers(x, wanted=wanted)
    assert found["one view"].shape == (6, 3)
    assert found["features"].shape == (6, 8)
    assert len(model.answers(x[:1, :, :1, :3])["one view"]) == 3
    assert len(model.answers(x, wanted=torch.ones_like(wanted))["one view"]) == 0
    nothing = torch.zeros(2, 6, 6, dtype=torch.bool)
    assert len(model.answers(x, valid=nothing, wanted=wanted)["one view"]) == 0


def test_candidates_are_of_pixels_whose_whole_patch_the_image_shows() -> None:
    model, seen = small(unlabelled=99).eval(), []
    model.mixture.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    wanted = torch.zeros(1, 9, 9, dtype=torch.bool)
    wanted[:, 4, 4] = True
    model.answers(torch.full((1, 7, 9, 9), 9.0), wanted=wanted)
    views = seen[1:]  # after the map's own
    assert [len(view) for view in views] == [24, 24], "5 times 5, less the one whose class is asked for"
    assert all((view > 1).all() for view in views), "nothing beyond the border"


def test_what_a_sensor_lacks_is_not_seen() -> None:
    model = small().eval()
    x, present = torch.rand(1, 7, 5, 5), torch.ones(1, 2, 5, 5, dtype=torch.bool)
    present[:, 1, :, 2:] = False
    expected = model(x, present=present)
    x[:, 6, :, 2:] = torch.nan
    assert torch.equal(model(x, present=present), expected)


def test_bad_options_are_refused() -> None:
    for options, said in (
        ({"heads": 3}, "heads=3"), ({"top_k": 1}, "expected 2 to 5"), ({"top_k": 6}, "expected 2 to 5"),
        ({"sensors": {"a": 3, "b": 3, "c": 1}}, "expected two"),
    ):  # fmt: skip
        with pytest.raises(GeomoeError, match=said):
            build("kong_fusion", {**SMALL, **options})


@pytest.mark.slow
def test_candidates_hold_the_true_class_of_pixels_that_nobody_learned_from() -> None:
    generator = torch.Generator().manual_seed(0)
    spectra = torch.randn(3, 6, generator=generator)

    def scenes(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        truth = torch.randint(0, 3, (number, 2, 2), generator=generator).repeat_interleave(4, 1)
        truth = truth.repeat_interleave(4, 2)
        seen = spectra[truth].movedim(-1, 1) + 0.7 * torch.randn(number, 6, 8, 8, generator=generator)
        height = truth[:, None].float() + 0.7 * torch.randn(number, 1, 8, 8, generator=generator)
        return torch.cat([seen, height], 1), truth

    model = small(mean=(0.0,), std=(1.0,), unlabelled=32).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    images, truth = scenes(12)
    wanted = torch.rand(truth.shape, generator=generator) < 0.2
    for _ in range(60):
        found = model.answers(images, wanted=wanted)
        loss = torch.nn.functional.cross_entropy(found["classes"].movedim(1, -1)[wanted], truth[wanted])
        (loss + 0.1 * candidates(found, truth)).backward()
        optimiser.step()
        optimiser.zero_grad()
    images, truth = scenes(4)
    with torch.inference_mode():
        said = model.eval()(images).softmax(1).movedim(1, -1).flatten(0, 2)
    kept = candidate_sets(said, said, said)
    lost = 1 - kept.gather(1, truth.flatten()[:, None]).float().mean()
    assert lost < 0.2
    assert kept.float().sum(1).mean() < 1.5, "and they are not all classes"


def test_views_show_nothing_of_a_sensor_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    shown: list[torch.Tensor] = []
    fused = model.fused

    def seen(patches: torch.Tensor, *more: object) -> torch.Tensor:
        shown.append(patches)
        return fused(patches, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "fused", seen)
    present = torch.ones(1, 2, 12, 12, dtype=torch.bool)
    present[:, 1] = False
    wanted = torch.zeros(1, 12, 12, dtype=torch.bool)
    wanted[0, 0, 0] = True
    model.answers(torch.rand(1, 7, 12, 12), present=present, wanted=wanted)
    views = shown[-2:]
    assert all((view[:, 6:] == 0).all() for view in views)
    assert not torch.equal(views[0][:, :6], views[1].flip(2, 3)[:, :6])
