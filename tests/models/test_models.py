"""What every registered model must do, whatever it is."""

import dataclasses

import pytest
import torch

import geomoe
from geomoe.moe import RoutingTrace

# Small enough to run, large enough that every expert of a random router is used.
TINY = {
    "mfg_hmoe": {"embed_dim": 12, "depths": (2, 1), "heads": 2, "window": 4, "squeeze": 4, "width": 6,
                 "expert_width": 4, "router_width": 8, "experts_per_group": 2},
}  # fmt: skip
TINY["mfg_hmoe_light"] = TINY["mfg_hmoe"]

PARAMETERS = {("mfg_hmoe", 4): 26_397_147, ("mfg_hmoe", 2): 22_452_699, ("mfg_hmoe_light", 4): 1_151_125,
              ("mfg_hmoe_light", 2): 1_027_477}  # fmt: skip


def tiny(name, **options):
    torch.manual_seed(0)
    return geomoe.create_model(name, **{"scale": 2, **TINY[name], **options})


@pytest.fixture(params=geomoe.list_models())
def name(request):
    return request.param


@pytest.mark.parametrize(("name", "scale"), PARAMETERS)
def test_parameter_count(name, scale):
    model = geomoe.create_model(name, scale=scale)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, scale]


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 3), (4, 4), (13, 9)])
def test_any_size_and_scale(name, scale, size):
    with torch.inference_mode():
        out = tiny(name, scale=scale)(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, scale * size[0], scale * size[1])
    assert out.isfinite().all()


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands(name, bands):
    assert tiny(name, bands=bands)(torch.rand(1, bands, 5, 6)).shape == (1, bands, 10, 12)


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


def test_hard_routing_leaves_exactly_the_router_and_mfa_without_a_gradient(name):
    model = tiny(name, routing="hard")
    model(torch.rand(2, 3, 24, 24)).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == {
        n for n, _ in model.named_parameters() if n.startswith(("aggregate.", "upsample.routed.router."))
    }


def test_an_image_does_not_depend_on_its_batch(name):
    model, x = tiny(name).eval(), torch.rand(3, 3, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=1e-5)


def test_the_trace_holds_a_plan_for_every_pixel_and_changes_nothing(name):
    model, x, trace = tiny(name).eval(), torch.rand(2, 3, 7, 5), RoutingTrace()
    with torch.inference_mode():
        assert torch.equal(model(x, trace=trace), model(x))
    assert len(trace) == 1
    assert trace[0].grid == (2, 7, 5)
    assert trace[0].experts.shape == (70, 1)


def test_save_and_load_give_the_same_result(name, tmp_path):
    model, x = tiny(name).eval(), torch.rand(1, 3, 6, 6)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    other = geomoe.create_model(name, scale=2, **TINY[name]).eval()
    other.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    with torch.inference_mode():
        assert torch.equal(model(x), other(x))


def test_bfloat16_follows_float32(name):
    # Without a base image to add to, which would hide the error.
    model, x = tiny(name, base="none").eval(), torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x)
    assert (exact - rough.float()).abs().mean() < 0.05 * exact.std()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("autocast", [False, True])
def test_cuda_follows_the_cpu(name, autocast):
    model, x = tiny(name, base="none").eval(), torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            other = model.cuda()(x.cuda()).float().cpu()
    assert (exact - other).abs().mean() < (0.05 if autocast else 1e-3) * exact.std()


def test_the_contract_states_the_model(name):
    model = tiny(name, scale=3, bands=5)
    contract = model.contract
    assert (contract.scale, contract.bands) == (3, 5)
    assert contract.tile % contract.multiple == contract.margin % contract.multiple == 0


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


def test_an_unknown_model_lists_those_there_are():
    with pytest.raises(geomoe.GeomoeError, match="mfg_hmoe_light"):
        geomoe.create_model("mfg_hmo")


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


def test_configuration_is_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny(name).config.scale = 3
