"""Swin2-MoSE: the published function, and what holds whatever its weights."""

import pytest
import torch

import geomoe
from geomoe.moe import RoutingTrace
from tests.models.golden import check, golden, image, seen
from tests.models.sizes import tiny


def test_it_is_the_published_one():
    model, trace = golden("swin2_mose", dtype=torch.float64, scale=4), RoutingTrace()
    model.register_forward_pre_hook(lambda module, args, _: (args, {"trace": trace}), with_kwargs=True)
    group = model.groups[0]
    found = seen(
        model,
        image(3, 32, 48),
        norm_in=model.norm_in,
        experts=group.blocks[0].experts,
        block0=group.blocks[0],
        block1=group.blocks[1],
        group=group,
        norm_out=model.norm_out,
    )
    check(found["norm_in"], -0.020403, 1.014741, -0.669559, -0.880362, -0.071438, tokens=True)
    check(found["experts"], 0.095403, 0.114075, 0.047769, 0.116079, 0.016192, tokens=True)
    check(found["block0"], -0.025775, 1.648557, -1.186652, 0.297503, -0.221272, tokens=True)
    check(found["block1"], -0.008542, 2.046400, -3.182606, -0.700069, -0.540062, tokens=True)
    check(found["group"], -0.058388, 1.584710, -0.599351, -1.375298, -1.054562, tokens=True)
    check(found["norm_out"], -0.008088, 1.031848, 0.459501, -0.389818, 0.760760, tokens=True)
    check(found["image"], 0.422499, 0.329259, 0.368435, 0.628487, 0.425460)
    chosen = ["".join(map(str, plan.experts[0].tolist())) for plan in trace]
    assert " ".join(chosen) == ("63 74 63 61 12 35 06 20 13 42 46 75 47 47 31 76 14 76 21 42 46 43 03 52")


@pytest.mark.parametrize(
    ("size", "values"),
    [
        ((32, 48), (-0.051643, 0.400140, -0.199254, 0.554879, 0.057269)),
        pytest.param(  # filled up to whole windows
            (20, 28), (-0.036193, 0.397669, -0.280995, 0.075385, 0.311636), marks=pytest.mark.slow
        ),
    ],
)
def test_of_four_bands_it_is_the_published_one(size, values):
    """Made for z-scores: nothing is subtracted."""
    model = golden("swin2_mose", dtype=torch.float64, scale=2, bands=4, border="published")
    check(seen(model, 2 * image(4, *size) - 1)["image"], *values)


def test_the_merger_knows_choices_by_their_experts_numbers():
    """Not by which of them is the better one: the gates, exchanged, exchange nothing but themselves."""
    layer = tiny("swin2_mose", num_experts=4).groups[0].blocks[0].experts
    x = torch.randn(1, 2, 3, 12)
    gate = layer.router.score.gate.weight
    torch.nn.init.zeros_(gate)
    results = []
    for better, worse in ((1, 3), (3, 1)):
        with torch.no_grad():
            gate.zero_()
            gate[better] = x.mean((0, 1, 2)).sign()
            gate[worse] = 0.5 * gate[better]
            trace = RoutingTrace()
            results.append((layer(x, trace), trace[0]))
    (first, plan), (second, other) = results
    assert plan.experts.tolist() == [[1, 3]]
    assert other.experts.tolist() == [[3, 1]]
    picture = torch.stack([layer.bank.expert(e, x.reshape(-1, 12)) for e in (1, 3)])[None]  # [1, 2, 6, 12]
    for result, gates in ((first, plan.weights[0]), (second, other.weights[0].flip(0))):
        expected = layer.merger(picture * gates.view(1, 2, 1, 1)).view(x.shape)
        torch.testing.assert_close(result, expected)


def test_at_first_every_image_is_given_the_same_experts_by_even_gates():
    model, trace = geomoe.create_model("swin2_mose", scale=2, depths=(2,), window=4).eval(), RoutingTrace()
    with torch.inference_mode():
        model(torch.rand(3, 3, 8, 8), trace)
    for plan in trace:
        assert len(plan.experts.sort(1).values.unique(dim=0)) == 1
        assert torch.equal(plan.weights, torch.full((3, 2), 0.5))


def test_noise_tries_other_experts_while_training():
    options = {"scale": 2, "depths": (1,), "window": 4, "drop_path": 0.0}
    chosen = {}
    for noise in (False, True):
        torch.manual_seed(0)
        model, trace = geomoe.create_model("swin2_mose", noise=noise, **options), RoutingTrace()
        model(torch.rand(8, 3, 4, 4), trace)
        chosen[noise] = len(trace[0].experts.unique())
    assert chosen[False] == 2
    assert chosen[True] > 2


def test_an_image_is_routed_whole():
    model, trace = tiny("swin2_mose", num_experts=4).eval(), RoutingTrace()
    with torch.inference_mode():
        model(torch.rand(3, 3, 9, 5), trace)
    assert [plan.grid for plan in trace] == [(3,)] * 3  # a plan a block
    assert trace[0].experts.shape == (3, 2)
