"""What a toy of MSLoRA-Net would not do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geomoe import GeomoeError
from geomoe.evaluation.benchmark.cost import active_parameters
from geomoe.models.mslora_net import MSLoRANet, MSLoRANetConfig
from geomoe.models.registry import build
from geomoe.moe import LowRankExperts, RoutingTrace
from geomoe.moe.plan import RoutingPlan

BASE = {"embed_dim": 16, "depth": 2, "heads": 2, "patch": 4}
SMALL = {"classes": ("rest", "building"), "window": 4, "base": BASE, "levels": (1, 2), "rank": 2, "width": 8}


def small(**options):
    torch.manual_seed(0)
    return MSLoRANet(MSLoRANetConfig(**{**SMALL, **options})).eval()


def learned(**options):
    """With adapters as they are once they have learned."""
    model = small(**options)
    for part in model.modules():
        if isinstance(part, LowRankExperts):
            nn.init.normal_(part.b, std=0.3)
    return model


def images(count=2, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def planned(experts, number=4):
    """Each row by one expert alone."""
    chosen = torch.as_tensor(experts)
    belief = F.one_hot(chosen, number).float()
    return RoutingPlan(chosen[:, None], torch.ones(len(chosen), 1), belief, belief, (number,), (len(chosen),))


def test_adapters_begin_as_the_base_exactly_whatever_the_router_says():
    model, x = small(), images(side=16)
    for part in model.adapted:
        nn.init.normal_(part.router.score.gate.weight, std=5.0)
    assert torch.equal(model.base.norm(model.features(x)[-1]), model.base.encode(model.base.tokens(x)))
    assert not torch.equal(learned().features(x)[-1], model.features(x)[-1])


@pytest.mark.parametrize("place", ["qkv", "up", "down"])
def test_one_expert_is_the_layer_with_its_adapter_merged(place):
    model = learned(alpha=8.0, rank=2)
    block, bank = model.base.blocks[0], model.adapted[0].bank
    layer = {"qkv": block.attention.qkv, "up": block.ffn.layers[0], "down": block.ffn.layers[2]}[place]
    x = torch.randn(1, 3, 2, layer.in_features)
    for e in range(4):
        experts = bank.at(place)
        merged = layer.weight + 8.0 / 2 * (experts.a[e] @ experts.b[e]).T
        found = bank.add(place, layer, x, planned([e] * 6))
        torch.testing.assert_close(found, F.linear(x, merged, layer.bias), atol=1e-5, rtol=1e-5)


def test_an_expert_moves_its_own_tokens_alone():
    model = learned()
    layer, bank, x = model.base.blocks[0].ffn.layers[0], model.adapted[0].bank, torch.randn(1, 1, 2, 16)
    before = bank.add("up", layer, x, planned([0, 3]))
    nn.init.normal_(bank.at("up").b.data[3])
    after = bank.add("up", layer, x, planned([0, 3]))
    assert torch.equal(after[0, 0, 0], before[0, 0, 0])
    assert not torch.equal(after[0, 0, 1], before[0, 0, 1])


def test_what_learns_is_counted():
    model, width, hidden = small(rank=4), 16, 64
    learns = sum(p.numel() for p in model.adapted.parameters() if p.requires_grad)
    each = 4 * 4 * ((width + 3 * width) + (width + hidden) + (hidden + width)) + width * 4
    assert learns == 2 * each
    named = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert named == {"adapted", "head"}


def test_the_base_learns_nothing_and_all_else_does():
    model = small().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):  # B is 0 at first, and A has no gradient before it is not
        optimizer.zero_grad()
        F.cross_entropy(model(images()), torch.arange(2 * 32 * 32).view(2, 32, 32) % 2).backward()
        optimizer.step()
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name in before if name.startswith("base.")}


def test_each_token_has_two_experts_for_all_places_of_a_block():
    model, trace = learned(), RoutingTrace()
    valid = torch.ones(2, 20, 9, dtype=torch.bool)
    valid[0, 8:] = False
    x = torch.rand(2, 3, 20, 9)
    found = model(x.masked_fill(~valid[:, None], float("nan")), trace, valid)
    assert [(plan.grid, plan.num_experts, plan.top_k) for plan in trace] == [((2, 5, 3), 4, 2)] * 2
    assert all(plan.valid.view(plan.grid).sum((1, 2)).tolist() == [2 * 3, 5 * 3] for plan in trace)
    for plan in trace:
        there = plan.of_valid()
        torch.testing.assert_close(there.weights.sum(1), torch.ones(there.num_rows))
        shares = there.probabilities.gather(1, there.experts)
        torch.testing.assert_close(there.weights, shares / shares.sum(1, keepdim=True))
    assert found.isfinite().all()
    assert torch.equal(found, model(x, valid=valid)), "what is not valid is not seen"


def test_twins_are_single_adapters():
    mixture, active, whole, frozen = (learned(twin=t) for t in ("none", "active", "parameters", "frozen"))
    assert [m.adapted[0].bank.at("qkv").a.shape for m in (active, whole)] == [(1, 16, 4), (1, 16, 8)]
    assert [m.adapted[0].bank.at("up").factor for m in (mixture, active, whole)] == [4.0] * 3
    count = [sum(p.numel() for p in m.parameters()) for m in (mixture, whole, frozen)]
    assert count[0] - count[1] == 2 * 16 * 4, "but for the routers"
    assert count[2] == count[0]
    assert active_parameters(mixture, images(1)) - 2 * 16 * 4 == active_parameters(active, images(1))
    assert not any(p.requires_grad for part in frozen.adapted for p in part.router.parameters())
    for model in (active, whole):
        model(images(1), trace := RoutingTrace())
        assert not trace


def test_the_head_alone_sees_the_base_and_nothing_else():
    model, x = small(head_only=True), images(side=16)
    assert torch.equal(model.base.norm(model.features(x)[-1]), model.base.encode(model.base.tokens(x)))
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"head"}


def test_coarse_features_are_means_of_squares():
    """What is changed within a square, its mean left as it is, changes nothing."""
    model = learned()
    fine, x = torch.randn(1, 4, 4, 16), images(1, 16)
    kept = model.head.coarse
    model.head.coarse = nn.Identity()
    width = kept[1].out_features
    seen = torch.randn(1, 4, 4, width)
    other = seen.clone()
    other[:, 0, 0] += 1.0
    other[:, 1, 1] -= 1.0
    torch.testing.assert_close(model.head(fine, other, x), model.head(fine, seen, x))
    other[:, 1, 1] += 2.0
    assert not torch.allclose(model.head(fine, other, x), model.head(fine, seen, x))


def test_both_levels_and_the_image_are_seen():
    model, x = learned(), images(1, 16)
    fine, coarse = model.features(x)
    said = model.head(fine, coarse, x)
    for other in (
        (fine + 1e-1 * torch.randn_like(fine), coarse, x),
        (fine, torch.randn_like(coarse), x),
        (fine, coarse, 1 - x),
    ):
        assert not torch.allclose(model.head(*other), said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 1}, "top_k=1: expected 2 to experts=4"), ({"top_k": 5}, "top_k=5"),
        ({"levels": (1, 3)}, r"levels=\(1, 3\): the base has 2 blocks"),
        ({"levels": (2, 1)}, "the earlier one first"),
        ({"twin": "gated"}, "twin='gated': expected"), ({"window": 2}, "window=2: expected a multiple of 4"),
        ({"head_only": True, "twin": "active"}, "twin='active': with head_only there are no experts"),
    ],
)  # fmt: skip
def test_bad_options_are_named(options, said):
    with pytest.raises(GeomoeError, match=said):
        build("mslora_net", {**SMALL, **options})
