"""Routers compute in single precision, whatever the precision of their weights and of the rows."""

import copy

import pytest
import torch
from torch import nn

from geomoe import moe
from tests.moe.routers import CHANNELS, EXPERTS, ROUTERS, router, rows_for

every_router = pytest.mark.parametrize("name", ROUTERS)
ROWS = 40


@pytest.fixture
def half_by_default():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def context_for(name):
    return torch.randn(ROWS, 3) if name == "conditioned" else None


def halved(made):
    """As mixed precision leaves a router: its parameters in bfloat16, the buffers as they were."""
    for module in made.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().bfloat16()))
    return made


def rounded(made):
    """The same values in single precision."""
    single = copy.deepcopy(made)
    for module in single.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().float()))
    return single


@every_router
def test_weights_in_half_precision_give_the_plan_of_their_values(name):
    made, rows, context = halved(router(name)).train(), rows_for(ROUTERS[name], ROWS), context_for(name)
    plans = []
    for one in (made, rounded(made)):
        torch.manual_seed(0)
        plans.append(one(rows, context=context))
    assert plans[0].logits.dtype == plans[0].probabilities.dtype == torch.float32
    assert plans[0].digest() == plans[1].digest()
    if ROUTERS[name].learns:
        plans[0].gates.square().sum().backward()
        assert {p.grad.dtype for p in made.parameters() if p.grad is not None} == {torch.bfloat16}


@every_router
@pytest.mark.usefixtures("half_by_default")
def test_a_router_made_where_half_precision_is_the_default(name):
    made, case = router(name), ROUTERS[name]
    kept = [b.dtype for b in made.buffers() if b.is_floating_point()]
    assert set(kept) <= {torch.float32}  # a bias that moves by 1e-3 stands still in bfloat16
    layer = moe.MoE(made, moe.FeedForwardExperts(CHANNELS, 16, EXPERTS))
    trace, signals = moe.RoutingTrace(), rows_for(case, ROWS)
    assert signals.dtype == (torch.int64 if case.ids else torch.bfloat16)
    done = layer(torch.randn(ROWS, CHANNELS), signals, context=context_for(name), trace=trace)
    assert done.dtype == torch.bfloat16
    plan = trace[0]
    assert plan.logits.dtype == plan.probabilities.dtype == torch.float32
    assert moe.load(plan).dtype == torch.float32
    assert moe.routing_health(plan).load_entropy <= 1 + 1e-6
    single = rounded(made.eval())
    with torch.no_grad():
        torch.testing.assert_close(made(signals).probabilities, single(signals).probabilities)


@pytest.mark.usefixtures("half_by_default")
def test_agreement_is_counted_in_single_precision():
    p = torch.eye(4, dtype=torch.float32).repeat(300, 1)
    best = p.topk(1)
    plan = moe.RoutingPlan(best.indices, best.values, p, p.log(), (4,), (1200,))
    other = plan.spread(torch.cat([torch.tensor([1]), torch.arange(1, 1200)]), (1200,))
    assert moe.agreement(plan, other) == pytest.approx(1199 / 1200, abs=1e-6)


@pytest.mark.usefixtures("half_by_default")
def test_a_bias_that_moves_in_small_steps_moves_where_half_precision_is_the_default():
    for preference in (moe.LossFreeBias((2, 2)), moe.BestGroup((2, 2))):
        made = moe.Router(moe.LinearScore(CHANNELS, 4), prefer=[preference])
        preference.bias.fill_(1.0)
        made.rebalance(made(torch.randn(9, CHANNELS) + 1), 1e-3)
        assert preference.bias.ne(1).any()


def test_a_layer_of_nn_linear_is_what_a_gate_replaces():
    gate = moe.Gate(CHANNELS, 3).bfloat16()
    rows = torch.randn(5, CHANNELS)
    torch.testing.assert_close(
        gate(rows), nn.functional.linear(rows, gate.weight.float(), gate.bias.float()), atol=1e-6, rtol=1e-6
    )
    assert isinstance(gate, nn.Linear)
