"""Every registered model with mixtures has twins, which are what they say."""

import pytest
import torch
from torch import nn

import geomoe
from geomoe.errors import GeomoeError
from geomoe.models.registry import build, config_of, list_models
from geomoe.models.skeleton import check_shapes
from geomoe.models.twin import EvenExperts, GatedTwin, twin_of
from geomoe.moe import (
    FeedForwardExperts,
    LinearScore,
    ModuleExperts,
    MoE,
    Router,
    RoutingTrace,
    TopK,
    softmax_router,
)
from geomoe.moe.routing.published import noisy_top_k_router
from geomoe.moe.routing.router import AnyRouter
from tests.models.sizes import tiny


def plans(model):
    trace = RoutingTrace()
    out = model(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), trace=trace)
    return out, trace


MIXTURES = [
    *(
        (name, {})
        for name in ("mfg_hmoe_light", "swin2_mose", "vmoe_ti", "unet_spatial_moe", "convnext_mixers_t")
    ),
    ("vit_ti", {"adapters": (2, 2, 4), "router": "softmax"}),
]


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", geomoe.list_models())
def test_what_routes_has_twins(name):
    model = tiny(name)
    assert not plans(model)[1] or hasattr(model.config, "twin")


@pytest.mark.parametrize(("name", "options"), MIXTURES)
def test_every_mixture_has_twins(name, options):
    mixture = tiny(name, **options)
    expected, _ = plans(mixture)
    for twin in ("active", "parameters", "gated", "frozen"):
        model = tiny(name, **options, twin=twin)
        routers = [m for m in model.modules() if isinstance(m, AnyRouter)]
        out, trace = plans(model.train())
        assert out.shape == expected.shape
        assert model.contract == mixture.contract, "a twin sees as far, and takes the same"
        assert bool(len(trace)) == bool(routers) == (twin in ("gated", "frozen"))
        out.square().mean().backward()
        frozen = [p for router in routers for p in router.parameters()] if twin == "frozen" else []
        assert not any(p.requires_grad for p in frozen)
        if twin == "gated" and not options:
            assert any(p.grad is not None for router in routers for p in router.parameters())


@pytest.mark.parametrize("name", ["mfg_hmoe_light", "swin2_mose", "vmoe_ti", "unet_spatial_moe"])
def test_dense_twins_are_as_large_as_they_say(name):
    options = {"scale": 2} if name in geomoe.list_models("image") else {}
    with torch.device("meta"):
        mixture, active, whole, gated, frozen = (
            build(name, {**options, "twin": twin})
            for twin in ("none", "active", "parameters", "gated", "frozen")
        )
    assert count(whole) == pytest.approx(count(mixture), rel=0.005)
    assert count(frozen) == count(mixture)
    assert count(active) == pytest.approx(count(gated), rel=0.01), "but for the router, which is small"
    assert count(active) < count(whole)


def test_the_gate_of_a_gated_twin_is_the_routers_and_multiplies_one_expert():
    torch.manual_seed(0)
    router, dense = noisy_top_k_router(4, 3, 2), nn.Linear(4, 4)
    moe = MoE(router, FeedForwardExperts(4, 8, 3)).eval()
    layer = twin_of(moe, "gated", lambda: dense).eval()
    assert isinstance(layer, GatedTwin)
    rows, valid = torch.randn(10, 4), torch.arange(10) != 3
    rows[3] = torch.nan
    trace = RoutingTrace()
    out = layer(rows, valid=valid, trace=trace)
    there = rows[valid]
    assert torch.allclose(out[valid], router(there).gates.sum(1, keepdim=True) * dense(there))
    assert not out[3].any(), "what is not there gives nothing"
    assert trace[0].num_experts == 3


def test_experts_without_a_choice_are_their_mean():
    torch.manual_seed(0)
    experts = [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 4)), nn.Linear(4, 4)]
    moe = MoE(softmax_router(4, 3), ModuleExperts(experts))
    rows = torch.randn(6, 4)
    expected = torch.stack([expert(rows) for expert in experts]).mean(0)
    assert torch.allclose(twin_of(moe, "parameters")(rows), expected, atol=1e-6)
    one = EvenExperts(MoE(Router(LinearScore(4, 3), TopK(1)), ModuleExperts(experts)))
    assert torch.allclose(one(rows), experts[1](rows)), "the largest"


def test_a_twin_does_not_stand_beside_another_control():
    with pytest.raises(GeomoeError, match="head='dense' has no mixture"):
        tiny("mfg_hmoe_light", head="dense", twin="gated")


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["active", "parameters"])
@pytest.mark.parametrize("name", [n for n in list_models() if hasattr(config_of(n, {}), "twin")])
def test_weights_of_twins_of_the_usual_size_are_read(name, twin):
    """What is made to find a twin's size is not taken for another model's tensors."""
    usual = {"classes": tuple(map(str, range(16)))} if hasattr(config_of(name, {}), "classes") else {}
    try:
        with torch.device("meta"):
            model = build(name, {**usual, "twin": twin})
    except GeomoeError:
        pytest.skip("has no such twin by default")
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    check_shapes("w.safetensors", name, {**usual, "twin": twin}, shapes)
