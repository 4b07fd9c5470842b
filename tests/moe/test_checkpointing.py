"""Layers that a checkpoint recomputes in the backward pass: traced once, balanced, replayed."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from geomoe import moe

C, E, N = 8, 4, 50


class Blocks(nn.Module):
    """Two routed blocks, each or both together recomputed."""

    def __init__(self, how="none", router=moe.switch_router):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(moe.MoE(router(C, E), moe.FeedForwardExperts(C, 16, E)) for _ in range(2))
        self.how = how

    def both(self, x, trace):
        for layer in self.layers:
            x = x + layer(x, trace=trace)
        return x

    def forward(self, x, trace=None, use_reentrant=False):
        if self.how == "none":
            return self.both(x, trace)
        if self.how == "together":
            return checkpoint(self.both, x, trace, use_reentrant=use_reentrant)
        for layer in self.layers:
            part = partial(layer, trace=trace)
            x = x + checkpoint(part, x, use_reentrant=use_reentrant)
        return x


def step(model, x, trace):
    """Result and gradients of a loss of which the balance of all plans is a part."""
    model.zero_grad()
    out = model(x, trace=trace)
    terms = [moe.switch_loss(plan) + 0.1 * moe.z_loss(plan) for plan in trace]
    (out.square().mean() + sum(terms)).backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(N, C, requires_grad=True)


@pytest.mark.parametrize("how", ["each", "together"])
@pytest.mark.parametrize("router", [moe.switch_router, moe.noisy_top_k_router, moe.softmax_router])
def test_balance_terms_and_traces_are_those_without_a_checkpoint(how, router, x):
    expected, traces = [], []
    for way in ("none", how):
        trace = moe.RoutingTrace()
        torch.manual_seed(2)
        expected.append(step(Blocks(way, router), x, trace))
        traces.append(trace)
    for a, b in zip(*expected, strict=True):
        torch.testing.assert_close(a, b)
    assert len(traces[1]) == 2
    assert [p.digest() for p in traces[0]] == [p.digest() for p in traces[1]]


@pytest.mark.parametrize("how", ["each", "together"])
@pytest.mark.parametrize("mode", [None, "soft"])
def test_a_recorded_pass_is_replayed_and_recomputed(how, mode, x):
    recorded = moe.RoutingTrace()
    Blocks()(torch.randn(N, C), trace=recorded)  # of other rows: choices that the model would not make
    done = []
    for way in ("none", how):
        model, trace = Blocks(way), moe.Replay(recorded, mode)
        out = model(x, trace=trace)
        out.square().mean().backward()
        assert [torch.equal(a.experts, b.experts) for a, b in zip(trace, recorded, strict=True)] == [True] * 2
        done.append([out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for a, b in zip(*done, strict=True):
        torch.testing.assert_close(a, b)


def test_a_layer_with_several_plans_is_not_replayed_under_a_checkpoint(x):
    model = Blocks("each")
    model.layers[1] = model.layers[0]
    trace = moe.RoutingTrace()
    step(model, x, trace)
    assert len(trace) == 2
    out = model(x, trace=moe.Replay(trace))
    with pytest.raises(ValueError, match="has 2 plans of its own"):
        out.sum().backward()


def test_a_reentrant_checkpoint_of_a_traced_layer_is_refused(x):
    model, trace = Blocks("each"), moe.RoutingTrace()
    out = model(x, trace=trace, use_reentrant=True)
    with pytest.raises(ValueError, match="use_reentrant=False"):
        out.sum().backward()
    model(x, use_reentrant=True).sum().backward()  # nothing is lost where nothing is traced
    hashed = copy.deepcopy(model)
    for layer in hashed.layers:
        layer.router = moe.hyperplane_router(C, E)  # a hash: no term could have a gradient
    trace = moe.RoutingTrace()
    hashed(x, trace=trace, use_reentrant=True).sum().backward()
    assert len(trace) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_traced_layer_compiles(x):
    model, trace = Blocks(), moe.RoutingTrace()
    compiled = torch.compile(model, backend="aot_eager")
    expected = step(model, x, moe.RoutingTrace())
    for a, b in zip(step(compiled, x, trace), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert len(trace) == 2
