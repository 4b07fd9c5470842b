"""Siamese MoE: what an exchange of dates changes, what attention is at first, and how experts are chosen."""

import pytest
import torch
import torch.nn.functional as F

from geomoe.models.registry import build
from geomoe.models.siamese_moe import ConvolutionMoE, SiameseMoE, SiameseMoEConfig
from geomoe.moe import MoE
from geomoe.moe.plan import RoutingTrace
from tests.models.sizes import TINY

DATES = {"before": 4, "after": 4}


def small(**options):
    torch.manual_seed(0)
    config = {"bands": 8, "sensors": DATES, "classes": ("unchanged", "changed"), "patch": 5, "stem": 6,
              "widths": (6, 8), "hidden": 8, **options}  # fmt: skip
    return SiameseMoE(SiameseMoEConfig(**config)).eval()


def exchanged(x):
    return x.roll(4, 1)


def test_an_exchange_of_dates_exchanges_features_and_leaves_their_difference():
    model, x = small(), torch.rand(2, 8, 7, 6)
    with torch.inference_mode():
        there, back = (model.joint(model.of_image(y, None, None)) for y in (x, exchanged(x)))
        before, after, difference = there.chunk(3, 1)
        torch.testing.assert_close(back, torch.cat([after, before, difference], 1))
        assert difference.any()
        assert not torch.allclose(model(x), model(exchanged(x))), "what came first counts"


def test_the_exchange_is_told_by_the_concatenation_alone():
    """With the weights of ``f1`` and ``f2`` alike, no score changes."""
    model, x = small(), torch.rand(2, 8, 7, 6)
    width = model.config.widths[-1]

    def even(weight):  # [out, 6 width], of the middle and the mean of f1, f2 and the difference
        for start in (0, 3 * width):
            both = weight[:, start : start + 2 * width].unflatten(1, (2, width))
            both.copy_(both.mean(1, keepdim=True).expand_as(both))

    with torch.no_grad():
        even(model.decide.router.score.weight if hasattr(model.decide.router.score, "weight") else
             model.decide.router.score.gate.weight)  # fmt: skip
        for expert in model.decide.bank.experts:
            even(expert[0].weight)
        torch.testing.assert_close(model(x), model(exchanged(x)))


def test_places_share_what_they_take_and_take_nothing_at_first():
    attention = small().attention
    x = torch.randn(2, 24, 5, 5)
    torch.testing.assert_close(attention.position.affinities(x).sum(2), torch.ones(2, 25))
    torch.testing.assert_close(attention.channel.affinities(x).sum(2), torch.ones(2, 24))
    assert torch.equal(attention(x), x)
    with torch.no_grad():
        attention.position.scale.fill_(0.5)
    assert not torch.equal(attention(x), x)


def test_a_mixture_of_convolutions_is_what_its_gate_says():
    torch.manual_seed(0)
    layer, x, trace = ConvolutionMoE(3, 5, 2).eval(), torch.randn(1, 3, 9, 8), RoutingTrace()
    out = layer(x, trace=trace)
    (plan,) = trace
    assert (plan.num_experts, plan.top_k, plan.grid) == (4, 2, (1, 9, 8))
    logits = layer.gate(x).movedim(1, -1).flatten(0, 2)
    chosen = logits.softmax(1).topk(2)
    torch.testing.assert_close(
        plan.gates.gather(1, chosen.indices), chosen.values / chosen.values.sum(1, True)
    )
    by_hand = 0
    for e, (group, dilation) in enumerate(zip(layer.moe.bank.groups, (1, 1, 1, 2), strict=True)):
        assert group.dilation == dilation
        each = F.conv2d(x, group.kernels()[0], group.bias[0], padding=group.reach, dilation=dilation)
        by_hand = by_hand + each * plan.gates[:, e].view(1, 1, 9, 8)
    torch.testing.assert_close(out, layer.norm(by_hand).relu(), atol=1e-5, rtol=1e-5)


def test_plans_are_of_both_dates_and_of_the_decision():
    model, trace = small(), RoutingTrace()
    wanted = torch.zeros(1, 6, 6, dtype=torch.bool)
    wanted[:, 2, 3] = True
    model(torch.rand(1, 8, 6, 6), trace, wanted=wanted)
    assert [(plan.grid, plan.num_experts) for plan in trace] == [((1, 6, 6), 4)] * 5
    assert [int(plan.valid.sum()) for plan in trace if plan.valid is not None][-1] == 1
    torch.testing.assert_close(trace[-1].gates[2 * 6 + 3].sum(), torch.tensor(1.0))


def test_weights_are_shared_but_for_first_layers_of_unlike_dates():
    assert len(small().stems) == 1
    unlike = small(bands=4, sensors={"before": 1, "after": 3})
    assert [stem.in_channels for stem in unlike.stems] == [1, 3]
    assert unlike(torch.rand(1, 4, 5, 5)).shape == (1, 2, 5, 5)


def test_a_date_that_is_not_there_is_not_seen():
    model, x = small(), torch.rand(1, 8, 8, 8)
    present = torch.ones(1, 2, 8, 8, dtype=torch.bool)
    present[:, 1, :, 4:] = False
    spoiled = x.clone()
    spoiled[:, 4:, :, 4:] = float("nan")
    with torch.inference_mode():
        assert torch.equal(model(x, present=present), model(spoiled, present=present))


def test_it_sees_as_far_as_it_says():
    model = small()
    tiling = model.contract.tiling
    assert tiling.reach == tiling.margin == 5 // 2 + 4
    x = torch.rand(1, 8, 17, 17, requires_grad=True)
    model(x)[0, :, 8, 8].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 8 - rows.min() == rows.max() - 8 == tiling.reach


@pytest.mark.parametrize("twin", ["active", "parameters"])
def test_twins_cost_what_they_stand_for(twin):
    with torch.device("meta"):
        none, dense = (ConvolutionMoE(32, 64, 2, twin=name) for name in ("none", twin))
    whole = sum(p.numel() for p in none.parameters())
    idle = none.moe.bank.num_parameters / 2 if twin == "active" else 0
    assert sum(p.numel() for p in dense.parameters()) == pytest.approx(whole - idle, rel=0.02)
    model = small(twin=twin)
    trace = RoutingTrace()
    assert model(torch.rand(1, 8, 5, 5), trace).isfinite().all()
    assert not len(trace)
    assert model.contract == small().contract
    assert not any(isinstance(module, MoE) for module in model.modules())


def test_a_frozen_router_keeps_its_start():
    model = small(twin="frozen")
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {name for name, _ in model.named_parameters() if ".gate." in name or ".router." in name}
    assert still


def test_every_parameter_learns():
    model = small().train()
    with torch.no_grad():
        for scale in (model.attention.position.scale, model.attention.channel.scale):
            scale.fill_(0.3)
    model(torch.rand(2, 8, 9, 9), RoutingTrace()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sensors": {"a": 4, "b": 2, "c": 2}}, "expected two, before and after"),
        ({"twin": "gated"}, "twin='gated': gates add up to 1"), ({"top_k": 5}, "top_k=5"),
        ({"patch": 4}, "patch=4"), ({"bands": 7}, "bands=7"),
    ],
)  # fmt: skip
def test_bad_options_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        small(**options)


def test_it_is_registered_with_the_size_of_the_paper():
    with torch.device("meta"):
        model = build("siamese_moe", {"bands": 20, "sensors": {"before": 10, "after": 10}})
    assert (model.config.patch, model.config.widths, model.config.stem) == (11, (32, 64), 32)
    assert "siamese_moe" in TINY
