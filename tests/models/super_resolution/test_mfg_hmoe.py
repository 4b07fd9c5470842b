"""MFG-HMoE: its routing, its start, and what its options refuse."""

import pytest
import torch

import geomoe
import geomoe.moe
from geomoe.moe import RoutingTrace
from tests.models.sizes import TINY, tiny

MFG = ("mfg_hmoe", "mfg_hmoe_light")


@pytest.fixture(params=MFG)
def name(request):
    return request.param


@pytest.mark.parametrize("routing", ["soft", "straight_through"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_every_parameter_receives_a_gradient(name, routing, top_k):
    # Stochastic depth would drop whole branches of so few images.
    model = tiny(name, routing=routing, top_k=top_k, drop_path=0.0)
    trace = RoutingTrace()
    model(torch.rand(2, 3, 24, 24), trace=trace).square().sum().backward()
    assert len(trace[-1].experts.unique()) == trace[-1].num_experts, "the test wants every expert in use"
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", [*MFG, "mfg_hmoe_released"])
def test_hard_routing_leaves_exactly_the_router_and_mfa_without_a_gradient(name):
    model = tiny(name, routing="hard")
    model(torch.rand(2, 3, 24, 24)).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == {
        n for n, _ in model.named_parameters() if n.startswith(("aggregate.", "upsample.routed.router."))
    }


def test_the_trace_holds_a_plan_for_every_pixel_and_changes_nothing(name):
    model, x, trace = tiny(name).eval(), torch.rand(2, 3, 7, 5), RoutingTrace()
    with torch.inference_mode():
        assert torch.equal(model(x, trace=trace), model(x))
    assert len(trace) == 1
    assert trace[0].grid == (2, 7, 5)
    assert trace[0].experts.shape == (70, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"embed": 12}, "no option 'embed'"),
        ({"scale": 5}, "scale=5"),
        ({"bands": 0}, "bands=0"),
        ({"routing": "sfot"}, "routing='sfot'"),
        ({"top_k": 99}, "top_k=99"),
        ({"heads": 7}, "heads=7"),
        ({"base": "nearest"}, "base='nearest'"),
        ({"heads": 0}, "heads=0"),
        ({"compress": 0}, "compress=0"),
        ({"compress": 500}, "compress=500"),
        ({"embed_dim": -4}, "embed_dim=-4"),
        ({"window": 0}, "window=0"),
        ({"depths": ()}, "depths="),
        ({"kernel_sizes": ()}, "kernel_sizes="),
        ({"overlap": -1.0}, "overlap=-1"),
        ({"drop_path": 1.0}, "drop_path=1"),
        ({"kernel_sizes": (2,)}, "kernel_size=2"),
    ],
)
def test_bad_options_are_named(name, options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model(name, **options)


def test_soft_routing_starts_at_the_scale_of_a_plain_layer():
    """With an undecided router, equation 7 would start near 1/16 of it."""
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16)
    options = {**TINY["mfg_hmoe"], "experts_per_group": 8}
    soft = geomoe.create_model("mfg_hmoe", scale=2, **options)
    plain = geomoe.create_model("mfg_hmoe", scale=2, **options, routing="hard")
    with torch.inference_mode():
        ratio = (soft(x) - 0.5).std() / (plain(x) - 0.5).std()
    assert 0.2 < ratio < 1


def test_with_window_pooling_a_distant_change_is_not_seen():
    """Nothing in a light model looks at the whole image, so what is far away cannot show."""
    model = tiny("mfg_hmoe_light", channel_pool="window").eval()
    x = torch.rand(1, 3, 64, 16)
    y = x.clone()
    y[:, :, 48:] = 0
    with torch.inference_mode():
        assert torch.equal(model(x)[:, :, :32], model(y)[:, :, :32])
        image = tiny("mfg_hmoe_light", channel_pool="image").eval()
        assert not torch.equal(image(x)[:, :, :32], image(y)[:, :, :32])


@pytest.mark.parametrize("head", ["routed", "gated", "dense", "mlp"])
@pytest.mark.parametrize("draws", ["features", "image"])
@pytest.mark.parametrize("trunk", ["convolution", "residual"])
def test_a_trunk_of_convolutions_needs_no_windows_and_sees_no_further_than_it_says(trunk, draws, head):
    model = tiny("mfg_hmoe_light", trunk=trunk, draws=draws, head=head, kernel_sizes=(5,)).eval()
    assert model.contract.tiling.multiple == 1
    reach = model.contract.tiling.reach
    x = torch.rand(1, 3, 9, 40)
    y = x.clone()
    y[..., 30:] = torch.rand(1, 3, 9, 10)
    with torch.inference_mode():
        before, after = model(x), model(y)
    kept = 2 * (30 - reach)
    assert torch.equal(before[..., :kept], after[..., :kept])
    assert not torch.equal(before[..., : kept + 4], after[..., : kept + 4])  # nor less far


@pytest.mark.parametrize("head", ["routed", "gated", "dense", "mlp"])
@pytest.mark.parametrize("trunk", ["convolution", "residual"])
def test_every_parameter_of_a_trunk_of_convolutions_receives_a_gradient(trunk, head):
    model = tiny("mfg_hmoe", trunk=trunk, draws="image", head=head)
    model(torch.rand(2, 3, 24, 24)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("head", ["routed", "gated", "dense", "mlp"])
def test_experts_that_draw_the_image_start_near_the_base(head):
    """From a noisy start training would first shrink the head to nothing."""
    torch.manual_seed(0)
    model = tiny("mfg_hmoe_light", draws="image", head=head).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        far = (model(x) - torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic")).abs().mean()
    assert 0 < far < 0.02


@pytest.mark.parametrize(("kernel_sizes", "top_k", "experts"), [((1,), 8, 8), ((3,), 1, 8), ((1, 3), 2, 4)])
def test_the_control_without_experts_costs_what_routing_and_experts_cost(kernel_sizes, top_k, experts):
    options = {"draws": "image", "width": 64, "router": "single", "kernel_sizes": kernel_sizes}
    options |= {"top_k": top_k, "experts_per_group": experts}
    x = torch.rand(1, 3, 16, 16)
    control, routed = (geomoe.create_model("mfg_hmoe_light", head=h, **options) for h in ("mlp", "routed"))
    flops = geomoe.moe.count_flops
    with torch.inference_mode():
        flops_control, flops_trunk = flops(lambda: control(x)), flops(lambda: control.trunk(x))
    aggregation = sum(p.numel() for p in routed.aggregate.parameters() if p.dim() > 1)
    bank = routed.upsample.routed.bank
    narrow = routed.upsample.narrow.weight.numel()
    wanted = 2 * x[0, 0].numel() * (aggregation + narrow) + x[0, 0].numel() * top_k * max(bank.row_flops())
    assert 0.97 < (flops_control - flops_trunk) / wanted < 1.01
