"""What a toy of Land-MoE would not do."""

import pytest
import torch
from torch import nn

from geomoe import GeomoeError
from geomoe.models.land_moe import LandMoE, LandMoEConfig, TokenExpert
from geomoe.models.registry import build
from geomoe.moe import MoE, RoutingTrace

BASE = {"embed_dim": 16, "depth": 2, "heads": 2, "patch": 4}
SMALL = {"classes": ("a", "b", "c"), "window": 4, "base": BASE, "ranks": (2, 3, 5), "tokens": 8, "groups": 4}


def small(**options):
    torch.manual_seed(0)
    return LandMoE(LandMoEConfig(**{**SMALL, **options})).eval()


def learned(**options):
    """With factors that are far from those at first."""
    model = small(**options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".scale", ".change")):
                parameter.normal_(std=0.3)
    return model


def images(count=2, side=32, seed=1):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_without_a_factor_and_a_filter_of_1_it_is_the_frozen_base_bit_for_bit():
    model, x = small(), images(side=16)
    for part in model.refinements:
        nn.init.zeros_(part.scale)
    assert torch.equal(model.features(x), model.base.encode(model.base.tokens(x)))
    assert not torch.equal(learned().features(x), model.features(x))


@pytest.mark.parametrize("rank", [4, 8, 16, 32])
def test_the_tokens_of_an_expert_have_its_rank(rank):
    torch.manual_seed(0)
    expert = TokenExpert(96, 100, rank)
    assert int(torch.linalg.matrix_rank((expert.a @ expert.b).double(), rtol=1e-5)) == rank


def test_an_expert_gives_what_rein_gives():
    """``S[:, 1:] (T[1:] W + b)``, by hand; a row that is like the first token alone stays as it is."""
    torch.manual_seed(0)
    expert, x, layer = TokenExpert(16, 8, 5), torch.randn(7, 16), nn.Linear(16, 16)
    tokens = expert.a @ expert.b
    shares = (x @ tokens.T / 4).softmax(1)
    values = nn.Linear(17, 16, bias=False)
    values.weight.data = torch.cat([layer.weight, layer.bias[:, None]], 1)
    torch.testing.assert_close(values(expert(x)), shares[:, 1:] @ layer(tokens[1:]), atol=1e-5, rtol=1e-4)
    expert.a.data[0] *= 100
    assert expert((expert.a @ expert.b)[:1]).abs().max() < 1e-6


def test_experts_are_weighed_by_a_softmax_of_the_token():
    model, x = learned(), torch.randn(1, 4, 4, 16)
    part, rows = model.refinements[0], x.view(-1, 16)
    gates = (rows @ part.mix.router.score.gate.weight.T).softmax(1)
    mixed = sum(gates[:, [e]] * part.mix.bank.expert(e, rows) for e in range(3))
    expected = rows + part.scale * model.out(model.values(mixed) + rows)
    found = part(x, model.values, model.out, None, None)
    torch.testing.assert_close(found.view(-1, 16), expected, atol=1e-5, rtol=1e-4)


def test_experts_take_each_token_by_itself_and_the_filter_their_places():
    model, x = learned(), torch.randn(1, 4, 4, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def moved(y):
        return y.flatten(1, 2)[:, order].view(1, 4, 4, 16)

    def refined(y):
        return model.refinements[0](y, model.values, model.out, None, None)

    torch.testing.assert_close(refined(moved(x)), moved(refined(x)), atol=1e-5, rtol=1e-4)
    assert (model.filter(moved(x)) - moved(model.filter(x))).abs().max() > 0.01


def test_the_one_filter_comes_after_every_layer():
    model, x, taken = learned(), images(1, 16), []
    model.filter.register_forward_hook(lambda part, given, out: taken.append(out))
    model.features(x)
    assert len(taken) == len(model.base.blocks) == 2
    order = []
    for part in (*model.refinements, model.filter):
        part.register_forward_hook(lambda part, given, out: order.append(type(part).__name__))
    model.features(x)
    assert order == ["Refinement", "FrequencyFilter"] * 2


def test_the_base_learns_nothing_and_all_else_does():
    model = small().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images()), torch.arange(2 * 32 * 32).view(2, 32, 32) % 3).backward()
        optimizer.step()
    assert all(p.grad is None for p in model.base.parameters())
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name in before if name.startswith("base.")}


def test_plans_are_of_the_tokens_of_whole_images_where_these_are_valid():
    model, trace = learned(), RoutingTrace()
    valid = torch.ones(2, 20, 9, dtype=torch.bool)
    valid[0, 8:] = False
    x = torch.rand(2, 3, 20, 9)
    hidden = x.masked_fill(~valid[:, None], float("nan"))
    found = model(hidden, trace, valid)
    assert [(plan.grid, plan.num_experts, plan.top_k) for plan in trace] == [((2, 5, 3), 3, 3)] * 2
    assert all(plan.valid.view(plan.grid).sum((1, 2)).tolist() == [2 * 3, 5 * 3] for plan in trace)
    assert found.isfinite().all()
    assert torch.equal(found, model(x, valid=valid)), "what is not valid is not seen"


def test_a_square_does_not_depend_on_those_beside_it_but_where_they_meet():
    """Squares of 16 pixels; the map is made as large as the image by lines between the middles of tokens."""
    model, x = learned(), images(1, 32)
    other = x.clone()
    other[..., 16:] = torch.rand(1, 3, 32, 16)
    apart = (model(x) - model(other)).abs().amax((0, 1, 2)) > 1e-6
    assert not apart[:14].any()
    assert apart[14:].all()
    torch.testing.assert_close(model(x[..., :16, :16])[..., :14, :14], model(x)[..., :14, :14])


def test_parameter_count():
    """By hand, of what learns beside Base-T, with two classes."""
    with torch.device("meta"):
        model = build("land_moe", {})
    each = (4 + 8 + 16 + 32) * (100 + 96) + 4 * 96 + 1
    shared = 97 * 96 + (96 * 96 + 96) + 16 * 9 * 8
    assert (
        sum(p.numel() for p in model.parameters() if p.requires_grad) == 4 * each + shared + 97 * 2 == 68_550
    )
    assert sum(p.numel() for p in model.base.parameters()) == 466_080


def parameters(model):
    return sum(p.numel() for part in model.refinements for p in part.parameters())


def test_twins():
    full = {
        "base": {"embed_dim": 96, "depth": 1, "heads": 4, "patch": 8},
        "ranks": (4, 8, 16, 32),
        "tokens": 100,
        "groups": 8,
    }
    mixture, one, wide, frozen = (
        small(**full, twin=twin) for twin in ("none", "parameters", "active", "frozen")
    )
    assert one.refinements[0].mix.a.shape == (100, 60)
    assert parameters(mixture) - parameters(one) == 4 * 96, "but for the gate"
    assert wide.refinements[0].mix.a.shape[0] == 400, "as many products with tokens"
    assert parameters(wide) == pytest.approx(parameters(mixture), rel=0.03)
    gate = frozen.refinements[0].mix.router.score.gate.weight
    assert not gate.requires_grad
    for model in (one, wide):
        model(images(1), trace := RoutingTrace())
        assert not trace
        assert not any(isinstance(part, MoE) for part in model.modules())


def test_the_head_alone_sees_the_base_and_nothing_else():
    model, x = small(head_only=True), images(side=16)
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"head"}
    assert torch.equal(model.features(x), model.base.encode(model.base.tokens(x)))
    assert small(filtered=False).filter is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 6}, "window=6: expected a multiple of 4"), ({"tokens": 1}, "tokens=1: expected 2"),
        ({"groups": 5}, "groups=5: expected a divisor of embed_dim=16"),
        ({"twin": "gated"}, "twin='gated': expected"),
        ({"head_only": True, "twin": "active"}, "twin='active': with head_only there are no experts"),
        ({"ranks": ()}, "ranks="),
    ],
)  # fmt: skip
def test_bad_options_are_named(options, said):
    with pytest.raises(GeomoeError, match=said):
        build("land_moe", {**SMALL, **options})
