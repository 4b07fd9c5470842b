"""The known value or property of every layer, of plans and of what is replayed."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geomoe import moe
from tests.moe.plans import C, E, N, rows


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_merging_linear_experts_equals_mixing_their_results():
    bank, x = moe.ConvExperts(3, 5, 3, E), torch.randn(2, 3, 6, 7)
    gates = torch.randn(2, E).softmax(1)
    each = torch.stack([F.conv2d(x, bank.kernels()[e], bank.bias[e], padding=1) for e in range(E)], 1)
    torch.testing.assert_close(
        moe.merge(bank, x, gates), (each * gates[:, :, None, None, None]).sum(1), atol=1e-5, rtol=1e-5
    )


def test_merging_one_expert_is_that_expert():
    bank, x = moe.FeedForwardExperts(C, 12, E, gated=True), torch.randn(3, 5, C)
    only = F.one_hot(torch.tensor([2, 0, 3]), E).float()
    expected = torch.stack([bank.expert(e, x[i]) for i, e in enumerate((2, 0, 3))])
    torch.testing.assert_close(moe.merge(bank, x, only), expected)
    layer, trace = moe.MergedMoE(moe.softmax_router(C, E), bank), moe.RoutingTrace()
    layer(x, x.mean(1), trace).sum().backward()
    assert trace[0].num_rows == 3
    assert layer.router.score.gate.weight.grad.abs().sum() > 0


def test_soft_slots_are_averages_of_tokens():
    layer, x = moe.SoftMoE(moe.FeedForwardExperts(C, 8, E), C, 3), torch.randn(2, 10, C)
    dispatched, combined = layer.gates(x)
    torch.testing.assert_close(dispatched.sum(1), torch.ones(2, 3 * E))
    torch.testing.assert_close(combined.sum(2), torch.ones(2, 10))
    slots = torch.einsum("bts,btc->bsc", dispatched, x)
    done = torch.stack([layer.bank.expert(s // 3, slots[:, s]) for s in range(3 * E)], 1)
    trace = moe.RoutingTrace()
    torch.testing.assert_close(layer(x, trace), torch.einsum("bts,bsc->btc", combined, done))
    assert trace[0].grid == (2, 10)
    layer(x).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def test_a_task_does_not_move_another_tasks_gate():
    x = rows()
    mmoe = moe.MultiGate([moe.softmax_router(C, E) for _ in range(2)], moe.FeedForwardExperts(C, 8, E))
    mmoe(x)[0].sum().backward()
    assert mmoe.routers[0].score.gate.weight.grad.abs().sum() > 0
    assert mmoe.routers[1].score.gate.weight.grad is None
    assert mmoe.bank.up.grad.abs().sum() > 0


def test_ple_keeps_own_experts_to_their_task():
    x = rows()

    def level(last):
        return moe.CustomisedGates(
            [moe.FeedForwardExperts(C, 8, 2) for _ in range(2)],
            moe.FeedForwardExperts(C, 8, 1),
            [moe.softmax_router(C, 3) for _ in range(2)],
            None if last else moe.softmax_router(C, 5),
        )

    one, two, trace = level(False), level(True), moe.RoutingTrace()
    a, b = two(one([x] * 3, trace=trace), trace=trace)
    assert a.shape == b.shape == (N, C)
    assert len(trace) == 5
    a.sum().backward()
    assert two.own[1].up.grad is None
    assert two.routers[1].score.gate.weight.grad is None
    assert two.own[0].up.grad.abs().sum() > 0
    assert two.shared.up.grad.abs().sum() > 0
    assert one.own[1].up.grad.abs().sum() > 0  # through the shared path of the first level
    with pytest.raises(ValueError, match="task 0"):
        moe.CustomisedGates([moe.FeedForwardExperts(C, 8, 2)], one.shared, [moe.softmax_router(C, 4)])


def test_shared_expert_alone_where_nothing_is_routed():
    shared, x = nn.Linear(C, C), rows()
    layer = moe.MoE(moe.switch_router(C, E), moe.FeedForwardExperts(C, 8, E), shared)
    plan = layer.router(x)
    off = torch.zeros_like(plan.experts, dtype=torch.bool)
    torch.testing.assert_close(layer.carry_out(x, replace(plan, kept=off)), shared(x))
    torch.testing.assert_close(layer(x), shared(x) + moe.dispatch(layer.bank, x, plan))


def test_pre_gated_plan_ignores_the_layer_before_it():
    banks = [moe.FeedForwardExperts(C, 8, E) for _ in range(2)]
    stack = moe.PreGated(moe.switch_router(C, E), [moe.switch_router(C, E)], banks)
    x, before, after = rows(), moe.RoutingTrace(), moe.RoutingTrace()
    stack(x, trace=before)
    with torch.no_grad():
        banks[0].down.mul_(100)
    stack(x, trace=after)
    assert before[1].digest() == after[1].digest()
    stack(x).sum().backward()
    assert all(p.grad is not None for p in stack.parameters())


def test_metadata_moves_logits_only_once_learned_and_missing_ones_never():
    encoder = moe.MetadataEncoder({"day_of_year": 365.25, "longitude": 360}, {"gsd": 10}, {"sensor": 3})
    score = moe.ConditionedScore(moe.LinearScore(C, E), encoder.channels)
    router, x = moe.Router(score), rows()
    nothing = {"day_of_year": torch.full((N,), float("nan")), "sensor": torch.full((N,), -1)}
    known = {"day_of_year": torch.full((N,), 100.0), "gsd": torch.full((N,), 10.0), "sensor": torch.ones(N)}
    plain = router(x).logits
    torch.testing.assert_close(router(x, context=encoder(known)).logits, plain)  # U starts at 0
    nn.init.normal_(score.condition.weight)
    torch.testing.assert_close(router(x, context=encoder(nothing)).logits, plain)
    assert (router(x, context=encoder(known)).logits - plain).abs().max() > 0.1
    with pytest.raises(ValueError, match="season"):
        encoder({"season": torch.ones(2)})
    with pytest.raises(ValueError, match="sensor: expected 0 to 2"):
        encoder({"sensor": torch.tensor([3])})
    zero, missing = encoder({"gsd": torch.tensor([0.0, float("nan")])})
    assert not torch.equal(zero, missing)
    with pytest.raises(ValueError, match="one value a row"):
        encoder({"gsd": torch.ones(2), "sensor": torch.ones(3)})
    image = moe.Pixels((2, 3, 4))
    assert image.repeat(torch.tensor([[1.0], [2.0]])).flatten().tolist() == [1.0] * 12 + [2.0] * 12


def test_a_context_that_is_not_heard_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no use of a context"):
        moe.switch_router(C, E)(rows(), context=torch.ones(N, 3))
    router = moe.Router(moe.ConditionedScore(moe.LinearScore(C, E), 3))
    with pytest.raises(ValueError, match=r"context \[1, 3\] for 60 rows"):
        router(rows(), context=torch.ones(1, 3))


@pytest.mark.parametrize("wrong", [torch.ones(2, 5, C), torch.ones(5, C).long()])
def test_rows_of_another_shape_or_kind_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rows \[N, C\]"):
        moe.switch_router(C, E)(wrong)


def test_a_score_that_gives_other_logits_than_it_says_is_refused():
    class Wrong(moe.Score):
        def forward(self, rows, context=None):
            return rows[:, :5]

    with pytest.raises(ValueError, match=r"Wrong gave logits \[60, 5\] for 60 rows and 4 experts"):
        moe.Router(Wrong((4,)))(rows())
    with pytest.raises(ValueError, match="does not hold 60 rows"):
        moe.switch_router(C, E)(rows(), (7, 8))


def test_experts_out_of_reach_are_never_run_and_none_is_chosen_twice():
    router = moe.Router(moe.LinearScore(C, 16), moe.TopK(2), adjust=[moe.ExpertDropout(0.9)])
    plan = router(torch.randn(2000, C))
    assert (plan.experts[:, 0] != plan.experts[:, 1]).all()
    assert not torch.isneginf(plan.logits.gather(1, plan.experts))[plan.kept].any()
    assert (plan.gates > 0).sum(1).max() <= 2
    alone = moe.Router(moe.HashScore(16), moe.TopK(2))(torch.arange(50))
    assert alone.kept.sum() == 50
    every = moe.Router(moe.LinearScore(C, 4), moe.AllExperts(), adjust=[moe.ExpertDropout(0.5)])(rows())
    assert every.kept.sum(1).float().mean() < 3
    dropped = moe.Router(moe.HashScore(4), adjust=[moe.ExpertDropout(0.9)])(torch.arange(50))
    assert torch.isfinite(dropped.probabilities).all()


def test_the_year_has_no_edge():
    days = moe.cyclic(torch.tensor([365.0, 1.0, 183.0]), 365.25)
    assert (days[0] - days[1]).norm() < 0.03
    assert (days[0] - days[2]).norm() > 1.9


@pytest.mark.parametrize("make", [moe.switch_router, lambda c, e: moe.dual_router(c, (2, 2))])
def test_one_in_a_hundred_of_the_known_falls_back_and_nearly_all_of_the_strange(make):
    router = moe.Fallback(make(C, E), C, quantile=0.99).eval()
    turn = torch.randn(C, C)
    router.fit(torch.randn(4000, C) @ turn)
    known = router(torch.randn(4000, C) @ turn)
    assert (~known.kept).float().mean() == pytest.approx(0.01, abs=0.006)
    for unusual in (10 * torch.randn(50, C) @ turn, torch.randn(50, C) @ turn + 100):
        plan = router(unusual)
        assert (~plan.kept).float().mean() > 0.9
        assert not plan.weights[~plan.kept].any()
        assert moe.routing_health(plan).dropped == 0


def test_who_falls_back_does_not_turn_on_autocast():
    router, x = moe.Fallback(moe.switch_router(C, E), C), torch.randn(500, C) @ torch.randn(C, C) + 5
    router.fit(x)
    exact = router.distance(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(router.distance(x), exact)


def test_what_falls_back_is_answered_by_the_shared_expert_or_the_mean():
    router, shared, x = moe.Fallback(moe.switch_router(C, E), C), nn.Linear(C, C), rows()
    layer = moe.MoE(router, moe.FeedForwardExperts(C, 8, E), shared)
    router.threshold.fill_(-1.0)
    torch.testing.assert_close(layer(x), shared(x))
    router.answer = "mean"
    every = torch.stack([layer.bank.expert(e, x) for e in range(E)]).mean(0)
    torch.testing.assert_close(layer(x), shared(x) + every)


def test_replay_is_bit_equal_and_refuses_other_layers():
    layer, x = moe.MoE(moe.switch_router(C, E), moe.FeedForwardExperts(C, 8, E)), rows()
    first = moe.RoutingTrace()
    before = layer(x, trace=first)
    with torch.no_grad():
        layer.router.score.gate.weight.normal_()
    second = moe.Replay(first)
    torch.testing.assert_close(layer(x, trace=second), before)
    assert second[0].digest() == first[0].digest()
    assert layer.router(x).digest() != first[0].digest()
    with pytest.raises(ValueError, match="one more layer"):
        layer(x, trace=second)
    with pytest.raises(ValueError, match="60"):
        layer(x[:5], trace=moe.Replay(first))


def test_replayed_choices_teach_the_router_of_now():
    layer, x = moe.MoE(moe.switch_router(C, E), moe.FeedForwardExperts(C, 8, E)), rows()
    first = moe.RoutingTrace()
    layer(x, trace=first).sum().backward()
    layer.zero_grad()
    trace = moe.Replay(first, mode="soft")
    layer(x, trace=trace).sum().backward()
    assert layer.router.score.gate.weight.grad.abs().sum() > 0
    with torch.no_grad():
        layer.router.score.gate.weight.normal_()
    trace = moe.Replay(first, mode="soft")
    layer(x, trace=trace)
    now = layer.router(x).probabilities
    assert torch.equal(trace[0].experts, first[0].experts)
    torch.testing.assert_close(trace[0].weights, now.gather(1, first[0].experts))


@pytest.mark.parametrize("around", [lambda router: router, lambda router: moe.Fallback(router, C)])
def test_replayed_choices_are_weighed_as_their_router_weighs(around):
    """DeepSeek-V3's gate is the sigmoid, and its weights sum to 2.5."""
    router = around(moe.deepseek_router(C, E, top_k=2, groups=2, top_groups=1))
    layer, x, first = moe.MoE(router, moe.FeedForwardExperts(C, 8, E)), rows(), moe.RoutingTrace()
    before = layer(x, trace=first)
    torch.testing.assert_close(layer(x, trace=moe.Replay(first, mode="normalised")), before)


def test_what_was_dropped_is_dropped_again_and_nothing_else():
    router = moe.switch_router(C, E, capacity_factor=0.5)
    layer, first = moe.MoE(router, moe.FeedForwardExperts(C, 8, E)), moe.RoutingTrace()
    layer(rows(), trace=first)
    again = moe.Replay(first, mode="soft")
    layer(-rows(), trace=again)
    assert torch.equal(again[0].dropped, first[0].dropped)
    assert not (again[0].dropped & again[0].kept).any()


def test_a_plan_can_be_stored_and_read(tmp_path):
    plan = moe.noisy_top_k_router(C, E)(rows())
    torch.save(plan.detach(), tmp_path / "plan.pt")
    again = torch.load(tmp_path / "plan.pt", weights_only=True)
    assert again.digest() == plan.digest()
    assert repr(plan) == "RoutingPlan(60 rows to 2 of 4 experts, grid (60,))"
