import torch

from geomoe import moe
from geomoe.moe.plan import LastSignals

C, E, N = 8, 4, 60


def layer():
    router = moe.Router(moe.LinearScore(C, E), prefer=[moe.LossFreeBias((E,))])
    return moe.MoE(router, moe.FeedForwardExperts(C, 16, E))


def test_terms_are_weighed_and_summed_over_all_layers():
    layers, rows, trace = [layer(), layer()], torch.randn(N, C), moe.RoutingTrace()
    for each in layers:
        each(rows, trace=trace)
    total = moe.balance_loss(trace, {moe.switch_loss: 0.1, moe.z_loss: 0.01})
    parts = [0.1 * moe.switch_loss(plan) + 0.01 * moe.z_loss(plan) for plan in trace]
    torch.testing.assert_close(total, sum(parts))
    total.backward()
    assert all(each.router.score.gate.weight.grad.abs().sum() > 0 for each in layers)
    assert moe.balance_loss(moe.RoutingTrace(), {moe.switch_loss: 0.1}) == 0


def test_every_router_learns_from_all_its_plans_of_all_batches():
    shared, once, batches = layer(), layer(), [torch.randn(N, C) + 1, torch.randn(N, C) - 1]
    traces = []
    for batch in batches:
        trace = moe.RoutingTrace()
        once(shared(shared(batch, trace=trace), trace=trace), trace=trace)  # one layer runs twice
        traces.append(trace.detach())
    for each, places in ((shared, (0, 1)), (once, (2,))):
        mine = [trace[i] for trace in traces for i in places]
        load = sum(torch.bincount(plan.experts.flatten(), minlength=E) for plan in mine).float()
        expected = 0.1 * torch.sign(load.mean() - load)
        each.expected = expected
    moe.rebalance(traces, 0.1)
    for each in (shared, once):
        torch.testing.assert_close(each.router.prefer[0].bias, each.expected)
        assert each.expected.abs().sum() > 0


def test_plans_of_no_router_move_nothing_and_every_kind_of_layer_names_its_own():
    made, rows, trace = layer(), torch.randn(N, C), moe.RoutingTrace()
    made.carry_out(rows, made.router(rows), trace)
    moe.rebalance(trace, 0.1)
    assert made.router.prefer[0].bias.abs().sum() == 0
    bank, routers = made.bank, [moe.softmax_router(C, E) for _ in range(3)]
    trace = moe.RoutingTrace()
    moe.MultiGate(routers[:2], bank)(rows, trace=trace)
    moe.PreGated(routers[0], [routers[1]], [bank, bank])(rows, trace=trace)
    moe.MergedMoE(routers[2], bank)(rows[None], signals=rows[:1], trace=trace)
    own = [moe.softmax_router(C, 2 * E), moe.softmax_router(C, 2 * E)]
    moe.CustomisedGates([bank], bank, own[:1], own[1])([rows, rows], trace=trace)
    expected = [routers[0], routers[1], routers[0], routers[1], routers[2], *own]
    assert all(a is b for a, b in zip(trace.routers, expected, strict=True))
    replay = moe.Replay(trace)
    moe.MultiGate(routers[:2], bank)(rows, trace=replay)
    assert replay.routers == routers[:2]


def test_a_trace_can_keep_what_the_last_router_was_shown():
    rows, bank, routers = torch.randn(N, C), layer().bank, [moe.softmax_router(C, E) for _ in range(2)]
    seen = []
    for router in routers:
        router.register_forward_hook(lambda _, shown, plan: seen.append((shown[0], plan)))
    for made in (
        moe.MoE(routers[0], bank),
        moe.MultiGate(routers, bank),
        moe.PreGated(routers[0], routers[1:], [bank, bank]),
        lambda rows, trace: moe.MergedMoE(routers[1], bank)(rows[None], signals=rows[:1], trace=trace),
    ):
        seen.clear()
        made(rows, trace=(trace := LastSignals()))
        assert trace.signals is seen[-1][0]
        assert trace[-1] is seen[-1][1]
    layer().carry_out(rows, routers[0](rows), trace=(trace := LastSignals()))
    assert trace.signals is None
