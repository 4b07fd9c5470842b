"""TTST: the published function, and the two modules of its paper that the published network does not have."""

import pytest
import torch

import geomoe
from geomoe.models.super_resolution.ttst import GlobalContext, MultiscaleFeedForward
from tests.models.golden import check, filled, golden, image, seen, uniform
from tests.models.sizes import tiny


def test_it_is_the_published_one():
    model = golden("ttst", dtype=torch.float64, scale=4)
    group = model.trunk.groups[0]
    branches = []
    group.blocks[0].branch.register_forward_hook(
        lambda module, args, result: branches.append((result - args[0]) / module.weight)
    )
    found = seen(
        model,
        image(3, 16, 24),
        norm_in=model.trunk.norm_in,
        block0=group.blocks[0],
        block1=group.blocks[1],
        closing=group.blocks[6],
        group=group,
        norm_out=model.trunk.norm_out,
    )
    check(found["norm_in"], 0.000203, 1.007714, -1.116240, 0.286004, 1.191262, tokens=True)
    check(branches[0], 0.003042, 0.067468, -0.098672, -0.030459, 0.038159, tokens=True)
    check(found["block0"], 0.057748, 1.066488, -1.122752, 0.362814, 1.015340, tokens=True)
    check(found["block1"], 0.076310, 1.092345, -1.122659, -0.042463, 1.101305, tokens=True)
    check(found["closing"], 0.103166, 1.367071, -2.585764, 0.229028, 0.966179, tokens=True)
    check(found["group"], -0.105717, 1.377888, -1.638316, 0.811155, 0.679409, tokens=True)
    check(found["norm_out"], 0.000808, 0.997657, -0.819499, -1.037098, 1.145270, tokens=True)
    check(found["image"], 0.079022, 0.048862, 0.080007, 0.085279, 0.116377)


def test_no_mean_is_subtracted_unless_asked_for():
    """With weights of 0 an image of the mean is what comes out."""
    for options, expected in (({}, [0, 0, 0]), ({"mean": ()}, [0.4488, 0.4371, 0.4040])):
        model = tiny("ttst", **options)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        with torch.no_grad():
            assert model(torch.rand(1, 3, 4, 4)).mean((0, 2, 3)).tolist() == pytest.approx(expected)


def fill(module, names):
    """The parameters of ``module`` by the rule, in their order by their modules' published ``names``."""
    module.double()
    parameters = dict(module.named_parameters())
    order = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    wanted = [name for name in order if name.endswith("weight") or len(parameters) > len(names)]
    with torch.no_grad():
        for name, parameter in zip(wanted, parameters.values(), strict=True):
            parameter.copy_(filled(name, tuple(parameter.shape)))


def rows():
    return uniform(180 * 8 * 12, 1).reshape(1, 180, 8, 12).permute(0, 2, 3, 1)


def test_the_multi_scale_feed_forward_layer_is_the_published_one():
    layer = MultiscaleFeedForward(180)
    assert sum(p.numel() for p in layer.parameters()) == 159_480
    sizes = ("3x3", "5x5", "7x7")
    names = [f"dwconv{size}{again}" for again in ("", "_1") for size in sizes]
    fill(layer, ["project_in", *names, "project_out"])
    with torch.no_grad():
        check(layer(rows()), 0.005151, 0.020846, 0.008659, 0.018478, 0.005503, tokens=True)


def test_global_context_is_the_published_one():
    layer = GlobalContext(180)
    assert sum(p.numel() for p in layer.parameters()) == 55_638
    fill(layer, ["conv0", "conv_spatial", "conv1", "conv2", "conv_squeeze", "conv"])
    with torch.no_grad():
        check(layer(rows()), -0.001105, 0.049626, 0.045918, 0.001345, -0.107298, tokens=True)


def test_the_modules_that_only_the_paper_has_learn_too():
    model = tiny("ttst", feed_forward="multiscale", context=True, drop_path=0.0)
    model(torch.rand(2, 3, 12, 12)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_the_channels_that_attention_keeps_are_the_paper_s_shares():
    """Of 30 alike: 1/2, 2/3, 3/4, 4/5, the third rounded down."""
    model = tiny("ttst", embed_dim=60, heads=2)
    branch = model.trunk.groups[0].blocks[0].branch
    kept = []
    softmax = torch.Tensor.softmax
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.Tensor,
            "softmax",
            lambda self, *args: kept.append(int(self[0, 0, 0].isfinite().sum())) or softmax(self, *args),
        )
        x = torch.randn(1, 4, 4, 60)
        branch(x, x)
    assert kept == [15, 20, 22, 24]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feed_forward": "multiscale", "embed_dim": 20, "heads": 2}, "expected a divisor of embed_dim=20"),
        ({"context": True, "embed_dim": 9, "heads": 3}, "embed_dim=9"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model("ttst", **options)
