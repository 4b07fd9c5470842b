"""What every registered model that gives the classes of pixels must do, whatever it is."""

import pytest
import torch

import geomoe
from geomoe.models.contract import Input, Output
from geomoe.models.registry import build
from geomoe.models.spatial_moe import route_pixels
from geomoe.moe import ExpertBank
from geomoe.moe.experts.convolution import ConvExperts, HeterogeneousBank
from geomoe.moe.layers.layer import MoE
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.published import single_router
from tests.models.sizes import CLASSES, COLOURS, tiny


@pytest.fixture(params=geomoe.list_models("classes"))
def name(request):
    return request.param


@pytest.fixture(params=[name for name in geomoe.list_models("classes") if tiny(name).contract.tiling.reach])
def bounded(request):
    """Those that see a pixel's surroundings alone."""
    return request.param


@pytest.fixture(params=["unet", "unet_spatial_moe"])
def local(request):
    return request.param


def test_any_size_and_any_bands(name):
    model = tiny(name, bands=5).eval()
    for size in [(1, 1), (7, 3), (16, 12)]:
        with torch.inference_mode():
            out = model(torch.rand(2, 5, *size))
        assert out.shape == (2, 3, *size)
        assert out.isfinite().all()


def test_the_contract_names_what_comes_out(name):
    contract = tiny(name, bands=4).contract
    assert contract.inputs == {"image": Input(4, sensors=contract.sensors)}
    assert sum(contract.sensors.values()) == (4 if contract.sensors else 0)
    things = ("town",) if name == "mfiae" else ()
    assert contract.outputs == {
        "classes": Output("classes", 3, classes=CLASSES, colours=COLOURS, things=things)
    }
    assert contract.outputs["classes"].describe() == "a map of 3 classes"
    assert [Output(kind, 4).describe() for kind in ("image", "label", "values", "features")] == [
        "an image of 4 bands", "a label of 4 classes", "4 values", "4 features"
    ]  # fmt: skip
    tiling = contract.tiling
    assert tiling.tile % tiling.multiple == tiling.margin % tiling.multiple == 0
    assert tiling.reach is None or tiling.reach <= tiling.margin


def test_what_lies_beyond_the_reach_is_not_seen(bounded):
    """The promise that tiles rest on; the reach is not promised too far by more than a cell."""
    model = tiny(bounded).eval()
    tiling = model.contract.tiling
    side = tiling.multiple * (-(-tiling.reach // tiling.multiple) + 2)
    x = torch.rand(1, 3, 8, side + 8)
    y = x.clone()
    y[..., side:] = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        apart = (model(x) - model(y)).abs().amax((0, 1, 2)) > 1e-6
    assert not apart[: side - tiling.reach].any()
    assert apart[: side - tiling.reach + 2 * tiling.multiple].any()


def test_a_tile_is_what_the_whole_image_gives_there(bounded):
    model = tiny(bounded).eval()
    tiling = model.contract.tiling
    start, core, margin = 2 * tiling.margin, 16, tiling.margin
    x = torch.rand(1, 3, start + core + 2 * margin, start + core + 2 * margin)
    tile = slice(start - margin, start + core + margin)
    with torch.inference_mode():
        whole, part = model(x), model(x[..., tile, tile])
    inside, there = slice(margin, margin + core), slice(start, start + core)
    assert (part[..., inside, inside] - whole[..., there, there]).abs().max() < 1e-5


def test_what_is_not_valid_is_seen_as_the_mean_and_not_routed(local):
    model = tiny(local, depth=1, mean=(0.4,)).eval()
    x, valid = torch.rand(1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, :, 5:] = False  # half of the cells at 4 and 5, all of those from 6
    nothing, mean = x.masked_fill(~valid[:, None], float("nan")), x.masked_fill(~valid[:, None], 0.4)
    trace = RoutingTrace()
    with torch.inference_mode():
        found = model(nothing, valid=valid, trace=trace)
    assert found.isfinite().all()
    assert torch.equal(found, model(mean, valid=valid))
    counted = [plan.valid.view(plan.grid).sum().item() for plan in trace]
    assert counted == {"unet": [], "unet_spatial_moe": [4 * 3, 8 * 5]}[local]


def test_what_fills_up_an_image_is_not_routed():
    trace = RoutingTrace()
    tiny("unet_spatial_moe")(torch.rand(1, 3, 5, 9), trace=trace)
    assert [plan.grid for plan in trace] == [(1, 2, 3), (1, 4, 6), (1, 8, 12)]
    assert [plan.valid.sum().item() for plan in trace] == [2 * 3, 3 * 5, 5 * 9]


@pytest.mark.parametrize(("where", "plans"), [("none", 0), ("bottom", 1), ("decoder", 2), ("both", 3)])
def test_blocks_that_hold_experts(where, plans):
    trace = RoutingTrace()
    tiny("unet", experts_in=where)(torch.rand(2, 3, 8, 8), trace=trace)
    assert len(trace) == plans
    assert all((plan.num_experts, plan.num_rows) == (4, 2 * plan.grid[1] * plan.grid[2]) for plan in trace)


@pytest.mark.parametrize("router", ["dual", "single", "switch", "softmax", "top_p"])
def test_routers_are_chosen_by_name(router):
    trace = RoutingTrace()
    out = tiny("unet_spatial_moe", router=router)(torch.rand(1, 3, 8, 8), trace=trace)
    assert out.isfinite().all()
    assert len(trace) == 3


def test_pixels_are_routed_by_signals_of_their_own():
    torch.manual_seed(0)
    moe = MoE(single_router(2, (3,)), HeterogeneousBank([ConvExperts(4, 5, 3, 3)])).eval()
    x, signals = torch.rand(1, 4, 6, 7), torch.rand(1, 2, 6, 7)
    trace = RoutingTrace()
    out = route_pixels(moe, x, signals, trace=trace)
    (plan,) = trace
    chosen, weights = (value.view(6, 7) for value in (plan.experts[:, 0], plan.weights[:, 0]))
    each = [torch.nn.functional.conv2d(x, k, b, padding=1)[0] for k, b in
            zip(moe.bank.groups[0].kernels(), moe.bank.groups[0].bias, strict=True)]  # fmt: skip
    by_hand = torch.stack(each)[chosen, :, torch.arange(6)[:, None], torch.arange(7)] * weights[..., None]
    torch.testing.assert_close(out[0], by_hand.permute(2, 0, 1), atol=1e-5, rtol=1e-5)


def test_bfloat16_follows_float32(name):
    model, x = tiny(name).eval(), torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x)
    assert (exact - rough.float()).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": ()}, r"classes=\(\): expected two"), ({"classes": ("a", "a")}, "each once"),
        ({"colours": ("#00ff00",)}, "colours=.*one for each of 3"), ({"colours": ("red",) * 3}, "as #rrggbb"),
        ({"mean": (0.1, 0.2)}, "mean=.*bands=3"), ({"std": (0.0,)}, "std=.*more than 0"),
        ({"kernel_sizes": (2,)}, "kernel_sizes=.*odd"), ({"router": "best"}, "router='best': .* one of dual"),
        ({"router": "expert_choice"}, "router='expert_choice': expected one of"),
        ({"router_options": {"k": 1}}, "noisy_top_k has no 'k'"), ({"experts": 0}, "experts=0"),
        ({"experts_in": "some"}, "experts_in='some'"), ({"depth": 0}, "depth=0"),
        ({"scale": 4}, "no option 'scale'"),
    ],
)  # fmt: skip
def test_bad_options_are_named(local, options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        tiny(local, **options)


def test_parameter_count():
    """By hand, of 3 bands and 2 classes."""
    expected = 3 * 9 * 32 + 32 + 2 * 32 + 32 * 2 + 2  # first convolution, last norm, head
    for level, width in enumerate((32, 64, 128, 256)):
        block = 2 * width + 9 * width * 2 * width + 2 * width + 2 * width * width + width
        expected += block * (1 if level == 3 else 2)
        expected += 0 if level == 0 else 4 * (width // 2) * width + width
        expected += 0 if level == 3 else 4 * 2 * width * width + width + 2 * width * width + width
    with torch.device("meta"):
        assert sum(p.numel() for p in build("unet", {}).parameters()) == expected


def test_dense_twins_cost_what_the_mixture_costs():
    options = {"classes": CLASSES, "width": 24, "depth": 2, "experts": 2}
    with torch.device("meta"):
        moe, active, whole = (
            build("unet_spatial_moe", {**options, "twin": t}) for t in ("none", "active", "parameters")
        )
    count = [sum(p.numel() for p in model.parameters()) for model in (moe, active, whole)]
    assert count[2] == pytest.approx(count[0], rel=0.01)
    banks = [m for m in moe.modules() if isinstance(m, HeterogeneousBank)]
    idle = sum(bank.num_parameters * (1 - 2 / bank.num_experts) for bank in banks)
    assert count[1] == pytest.approx(count[0] - idle, rel=0.01)
    assert not any(isinstance(m, ExpertBank) for m in whole.modules())
    assert moe.contract.tiling == active.contract.tiling, "the twin sees as far"
