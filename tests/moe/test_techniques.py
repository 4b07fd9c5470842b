"""The known value or property of every technique, one test each (or a few)."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn

from geomoe import moe
from geomoe.moe.kernels.simplex import sparsemax, top
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.routing.assignment import balanced_assignment
from geomoe.moe.routing.capacity import limit
from geomoe.moe.surgery import norm_loss

N, C, E = 60, 8, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rows():
    return torch.randn(N, C)


def made(probabilities, k=1):
    p = torch.as_tensor(probabilities)
    best = p.topk(k, 1)
    return RoutingPlan(best.indices, best.values, p, p.log(), (p.shape[1],), (len(p),))


def collapsed():
    return made([[1.0] + [0.0] * (E - 1)] * 8)


def even():
    return made((0.96 * torch.eye(E) + 0.01).repeat(2, 1))


# Routers


def test_dual_routing_is_the_product_and_both_gates_learn():
    router, x = moe.dual_router(C, (3, 2), 2), rows()
    plan, score = router(x), router.score
    p_group = (x @ score.to_group.weight.T).softmax(1)
    p_expert = ((x + score.group_embedding[1]) @ score.to_expert[1].weight.T).softmax(1)
    torch.testing.assert_close(plan.probabilities[:, 3:], p_group[:, 1:] * p_expert)
    torch.testing.assert_close(plan.probabilities.sum(1), torch.ones(N))
    assert (plan.groups == p_group.argmax(1, keepdim=True)).all()
    assert (plan.members < torch.tensor([3, 2])[plan.groups]).all()
    plan.weights.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in router.parameters())


def test_noisy_top_k_has_k_gates_that_sum_to_one_and_noise_only_in_training():
    router, x = moe.noisy_top_k_router(C, E, 2), rows()
    plan = router(x)
    assert ((plan.gates > 0).sum(1) == 2).all()
    torch.testing.assert_close(plan.gates.sum(1), torch.ones(N))
    assert not torch.equal(plan.logits, plan.noise.clean)
    assert not plan.noise.clean.any()  # W starts at 0
    quiet = router.eval()(x)
    assert quiet.noise is None
    assert torch.equal(quiet.logits, router(x).logits)


def test_vmoe_takes_the_largest_of_the_softmax_as_they_are_and_noise_only_in_training():
    router, x = moe.vmoe_router(C, E), rows()
    quiet = router.eval()(x)
    p = (x @ router.score.gate.weight.T).softmax(1)
    gates, experts = p.topk(2)
    assert torch.equal(quiet.experts, experts)
    torch.testing.assert_close(quiet.weights, gates)
    assert (quiet.weights.sum(1) < 0.99).any()  # not made to sum to 1
    assert (quiet.noise, quiet.kept) == (None, None)
    plan = router.train()(x)
    assert (plan.noise.std == 1 / E).all()
    torch.testing.assert_close(plan.weights, plan.noise.noisy.softmax(1).gather(1, plan.experts))
    many = router(x.repeat(100, 1)).noise
    assert float((many.noisy - many.clean).detach().std()) == pytest.approx(1 / E, rel=0.02)
    assert float(moe.load_loss(plan).detach()) > 0
    with pytest.raises(ValueError, match="std=0: expected above 0"):
        moe.FixedNoise(E, 0)


def test_vmoe_drops_what_is_beyond_an_even_load_and_a_twentieth():
    """Two experts are asked for by all 100 rows; each has places for 1.05 * 2 * 100 / E of them."""
    router, x = moe.vmoe_router(C, E), torch.ones(100, C)
    with torch.no_grad():
        router.score.gate.weight.copy_(torch.tensor([60.0, 30.0] + [0.0] * (E - 2))[:, None].expand(E, C) / C)
    plan = router(x)
    places = math.ceil(1.05 * 2 * 100 / E)
    assert moe.routing_health(plan).rows == (places, places, *[0] * (E - 2))
    assert moe.routing_health(plan).dropped == pytest.approx(1 - places / 100)
    assert torch.equal(plan.dropped, (torch.arange(100) >= places)[:, None].expand(100, 2))
    out = moe.dispatch(moe.FeedForwardExperts(C, 8, E), x, plan)
    assert not out[places:].any()  # nothing is added to what the block carries on
    assert router.eval()(x).kept is None


def test_switch_weighs_by_the_probability():
    plan = moe.switch_router(C, E)(rows())
    assert torch.equal(plan.weights, plan.probabilities.amax(1, keepdim=True))


@pytest.mark.parametrize("priority", ["order", "gate"])
def test_no_load_is_above_capacity_and_what_is_dropped_adds_nothing(priority):
    router = moe.Router(
        moe.LinearScore(C, E), moe.TopK(2, "normalised"), capacity=moe.Capacity(0.5, priority)
    )
    x = rows()
    plan = router(x)
    limit = math.ceil(0.5 * 2 * N / E)
    counts = torch.bincount(plan.experts[plan.kept], minlength=E)
    assert counts.max() == limit
    out = moe.dispatch(moe.FeedForwardExperts(C, 8, E), x, plan)
    dropped = ~plan.kept.any(1)
    assert dropped.any()
    assert not out[dropped].any()


def test_gshard_keeps_all_first_choices_before_any_second_one():
    router = moe.gshard_router(C, E, capacity_factor=0.5)
    plan = router(rows())
    firsts = torch.bincount(plan.experts[:, 0], minlength=E)
    kept_firsts = torch.bincount(plan.experts[:, 0][plan.kept[:, 0]], minlength=E)
    limit = math.ceil(0.5 * 2 * N / E)
    assert torch.equal(kept_firsts, firsts.clamp(max=limit))
    assert router.eval()(rows()).kept is None  # neither chance nor limit in evaluation


def test_gshard_takes_the_second_by_chance_of_its_weight():
    choice = moe.TopK(2, "normalised", second_at_random=True)
    p = torch.tensor([0.8, 0.15, 0.05]).expand(20_000, 3)
    share = choice(p.log(), p.log()).kept[:, 1].float().mean()
    assert float(share) == pytest.approx(2 * 0.15 / 0.95, abs=0.02)


def test_batch_priority_drops_the_smallest_gates():
    router = moe.batch_priority_router(C, E, capacity_factor=0.6).eval()
    plan = router(rows())
    assert plan.dropped.any()
    for e in range(E):
        mine = plan.experts[:, 0] == e
        gates, kept = plan.weights[mine, 0], plan.kept[mine, 0]
        if (~kept).any() and kept.any():
            assert gates[~kept].max() <= gates[kept].min()


def test_batch_priority_serves_first_choices_before_second_ones():
    capacity = moe.Capacity(0.5, "gate", 0.5)  # one place each
    experts = torch.tensor([[0, 1], [1, 0]])
    p = torch.tensor([[0.55, 0.45], [0.56, 0.44]])
    kept = capacity.keep(experts, p, None, 2, training=True)
    assert kept.tolist() == [[True, False], [True, False]]


def test_capacity_counts_what_is_asked_for():
    router = moe.Router(moe.LinearScore(C, E), moe.TopP(0.0), capacity=moe.Capacity(1.0))
    plan = router(rows())
    assert torch.bincount(plan.experts[plan.kept], minlength=E).max() <= math.ceil(N / E)
    assert limit(1.1, torch.tensor([100, 99, 0]), 10).tolist() == [11, 11, 0]


def test_expert_choice_has_an_even_load():
    plan = moe.expert_choice_router(C, E, 1.5)(rows())
    counts = torch.bincount(plan.experts[plan.kept], minlength=E)
    assert counts.tolist() == [math.ceil(1.5 * N / E)] * E
    taken = (plan.gates > 0)[:, 2]
    column = plan.probabilities[:, 2]
    assert column[taken].min() >= column[~taken].max()
    assert moe.routing_health(plan).dropped == 0  # nobody was refused a place


def test_top_p_grows_from_one_to_all():
    score, x = moe.LinearScore(C, E), rows()
    numbers = [moe.Router(score, moe.TopP(p))(x).kept.sum(1) for p in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert (numbers[0] == 1).all()
    assert (numbers[-1] == E).all()
    assert all((a <= b).all() for a, b in itertools.pairwise(numbers))
    plan = moe.Router(score, moe.TopP(0.6))(x)
    assert (plan.gates.sum(1) >= 0.6 - 1e-6).all()
    less = plan.gates.sum(1) - plan.weights.gather(1, plan.kept.sum(1, keepdim=True) - 1)[:, 0]
    assert (less < 0.6 + 1e-6).all()  # without the last one it would not be reached


def test_hash_is_stable_across_runs_and_even():
    plan = moe.hash_router(5)(torch.arange(5000))
    assert plan.experts[:10, 0].tolist() == [0, 0, 2, 4, 0, 2, 3, 3, 1, 2]
    assert min(moe.routing_health(plan).load) > 0.18
    assert (
        moe.hash_router(5, seed=1)(torch.arange(50)).digest() != moe.hash_router(5)(torch.arange(50)).digest()
    )
    with pytest.raises(ValueError, match="whole ids"):
        moe.hash_router(5)(torch.randn(3))


def test_hyperplanes_give_equal_rows_one_bucket_and_do_not_see_scale():
    router, x = moe.hyperplane_router(C, 8), rows()
    assert torch.equal(router(x).experts, router(x * 3).experts)
    assert len(router(x[:1].repeat(9, 1)).experts.unique()) == 1
    assert len(router(x).experts.unique()) == 8


@pytest.mark.parametrize(("number", "experts"), [(40, 8), (30, 7), (64, 4), (5, 3), (3, 5), (1, 2)])
def test_base_is_scipys_assignment(number, experts):
    scores = torch.randn(number, experts)
    mine = balanced_assignment(scores)
    places = -(-number // experts)
    value = scores.double().repeat_interleave(places, 1).numpy()
    chosen_rows, columns = linear_sum_assignment(value, maximize=True)
    assert torch.equal(chosen_rows_of(mine), torch.as_tensor(chosen_rows))
    assert mine.tolist() == (columns // places).tolist()
    assert torch.bincount(mine, minlength=experts).max() <= places


def chosen_rows_of(assignment):
    return torch.arange(len(assignment))


def test_base_is_balanced_in_training_and_greedy_in_evaluation():
    router, x = moe.base_router(C, E), rows() + 1
    assert torch.bincount(router.train()(x).experts[:, 0], minlength=E).tolist() == [N // E] * E
    plan = router.eval()(x)
    assert torch.equal(plan.experts[:, 0], plan.logits.argmax(1))


def test_base_leaves_out_of_reach_what_is_and_refuses_what_is_no_number():
    scores = torch.randn(12, 3)
    scores[:4, 0] = float("-inf")
    mine = balanced_assignment(scores)
    assert (mine[:4] != 0).all()
    assert torch.bincount(mine).tolist() == [4, 4, 4]
    scores[5, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        balanced_assignment(scores)


def test_base_on_equal_scores_is_still_balanced():
    assert torch.bincount(balanced_assignment(torch.ones(12, 3))).tolist() == [4, 4, 4]
    assert torch.bincount(balanced_assignment(torch.ones(12, 3) + 1e-9 * torch.randn(12, 3))).tolist() == [
        4,
        4,
        4,
    ]


def test_dselect_has_at_most_k_experts_once_saturated():
    router, x = moe.dselect_router(C, 8, selectors=2), rows()
    early = router(x)
    assert early.kept is None  # all eight
    torch.testing.assert_close(early.gates.sum(1), torch.ones(N))
    with torch.no_grad():
        router.score.to_code.weight.copy_(torch.randn(6, C) * 100)
    late = router(x)
    assert (late.kept.sum(1) <= 2).float().mean() > 0.9
    torch.testing.assert_close(late.gates.sum(1), torch.ones(N))
    with pytest.raises(ValueError, match="2 or more"):
        moe.dselect_router(C, 1)


def test_cosine_does_not_see_scale():
    router, x = moe.cosine_router(C, E), rows()
    torch.testing.assert_close(router(x).logits, router(x * 1000).logits)
    assert router(x).logits.abs().max() <= 1 / 0.5


def test_frozen_routers_learn_nothing_and_all_experts_are_the_dense_mix():
    router, x = moe.frozen_router(C, E, E), rows()
    assert not list(router.parameters())
    bank = moe.FeedForwardExperts(C, 8, E)
    every = torch.stack([bank.expert(e, x) for e in range(E)], 1)
    mix = (every * router(x).probabilities[:, :, None]).sum(1)
    torch.testing.assert_close(moe.MoE(router, bank)(x), mix)


def test_stochastic_experts_choose_at_random_and_agree_when_equal():
    router, x = moe.stochastic_router(C, E), rows()
    assert not torch.equal(router(x).experts, router(x).experts)
    bank = moe.FeedForwardExperts(C, 8, E)
    with torch.no_grad():
        for stack in bank.parameters():
            stack.copy_(stack[:1].expand_as(stack).clone())
    layer = moe.MoE(router, bank)
    assert float(moe.consistency_loss(layer(x), layer(x)).detach()) == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(layer.eval()(x), bank.expert(0, x))
    assert float(moe.consistency_loss(x, -x)) > 0


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


# Balance


def test_balance_terms_at_their_known_values():
    assert float(moe.importance_loss(collapsed())) == pytest.approx(E - 1)
    assert float(moe.importance_loss(even())) == pytest.approx(0, abs=1e-10)
    assert float(moe.switch_loss(collapsed())) == pytest.approx(E)
    assert float(moe.switch_loss(even())) == pytest.approx(1)
    uniform = made(torch.full((8, E), 1 / E), k=2)
    assert float(moe.switch_loss(uniform)) == pytest.approx(1)  # for every k
    assert float(moe.z_loss(moe.Router(zero(moe.LinearScore(C, E)))(rows()))) == pytest.approx(
        math.log(E) ** 2
    )
    assert float(moe.router_similarity_loss(torch.eye(C)[:, :E])) == 0
    assert float(moe.router_similarity_loss(torch.ones(2, 2))) == pytest.approx(1 + 2 + 2 + 1)


def zero(score):
    nn.init.zeros_(score.gate.weight)
    return score


@pytest.mark.parametrize("adjust", [[], [moe.Temperature(3.0)]])
def test_load_loss_is_that_of_many_draws(adjust):
    score, noise = moe.LinearScore(C, E), moe.Noise(C, E)
    router = moe.Router(score, moe.TopK(2, "normalised"), noise=noise, adjust=adjust)
    with torch.no_grad():
        score.gate.weight.normal_(std=0.3)
    x = rows() + 1
    drawn = sum(torch.bincount(router(x).experts.flatten(), minlength=E) for _ in range(400)).float()
    losses = torch.stack([moe.load_loss(router(x)) for _ in range(50)])
    measured = float(drawn.var(correction=0) / drawn.mean() ** 2)
    assert measured > 0.1  # clearly uneven
    assert float(losses.mean().detach()) == pytest.approx(measured, rel=0.1)
    losses.sum().backward()
    assert score.gate.weight.grad.abs().sum() > 0
    assert noise.width.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="without noise"):
        moe.load_loss(router.eval()(x))


def test_loss_free_bias_evens_the_load_and_leaves_weights_alone():
    bias = moe.LossFreeBias((E,))
    router, x = moe.Router(moe.LinearScore(C, E), prefer=[bias]), rows() + 2
    before = router(x)
    for _ in range(400):
        router.rebalance(router(x), 0.01)
    after = router(x)
    assert min(moe.routing_health(after).load) > 0.15 > min(moe.routing_health(before).load)
    assert torch.equal(before.probabilities, after.probabilities)
    assert torch.equal(after.weights, after.probabilities.gather(1, after.experts))
    unchanged = bias.bias.clone()
    router(x)  # a second forward pass, as checkpointing makes, counts nothing
    assert torch.equal(bias.bias, unchanged)


def test_dual_ascent_evens_a_sparsemax_gate():
    router = moe.Router(moe.LinearScore(C, E), moe.Sparsemax(biased=True), prefer=[moe.DualAscent((E,))])
    x = rows() + 2
    before = moe.routing_health(router(x))
    for _ in range(400):
        router.rebalance(router(x), 0.1)
    after = moe.routing_health(router(x))
    assert after.gini < 0.1 < before.gini
    assert sparsemax(torch.tensor([[0.5, 0.3, -1.0]])).tolist()[0] == pytest.approx([0.6, 0.4, 0.0])


def test_group_biases_even_groups_and_experts():
    router, x = moe.dual_router(C, (2, 2)), torch.randn(400, C) + 2
    before = router(x)
    for _ in range(600):
        router.rebalance(router(x), 0.05)
    assert min(moe.routing_health(router(x)).load) > 0.2 > min(moe.routing_health(before).load)


def test_switch_loss_sees_the_load_before_capacity():
    router = moe.switch_router(C, E, capacity_factor=0.5)
    x = rows() + 2
    plan = router(x)
    free = moe.Router(router.score)(x)
    assert plan.dropped.any()
    assert moe.routing_health(plan).dropped == pytest.approx(float(plan.dropped.float().mean()))
    assert float(moe.switch_loss(plan).detach()) == pytest.approx(float(moe.switch_loss(free).detach()))


def test_z_loss_holds_the_dual_router_too():
    router = moe.dual_router(C, (2, 2))
    loss = moe.z_loss(router(rows()))
    assert float(loss.detach()) > 0.1
    loss.backward()
    assert router.score.to_group.weight.grad.abs().sum() > 0


def test_losses_have_finite_slopes_at_their_edges():
    router, x = moe.switch_router(C, E), rows()
    moe.mutual_information_loss(router(x), torch.zeros(N, dtype=torch.long), num_tasks=5).backward()
    assert torch.isfinite(router.score.gate.weight.grad).all()
    a = torch.randn(1, 4, requires_grad=True)
    moe.cka(a, torch.randn(1, 4)).backward()
    assert torch.isfinite(a.grad).all()


def nothing_routed():
    router = moe.noisy_top_k_router(C, E)
    return router, router(torch.zeros(0, C))


NONE = torch.zeros(0, dtype=torch.long)


@pytest.mark.parametrize(
    "term",
    [
        moe.switch_loss,
        moe.z_loss,
        moe.importance_loss,
        moe.load_loss,
        moe.entropy_loss,
        lambda plan: moe.mutual_information_loss(plan, NONE),
        lambda plan: moe.mutual_information_loss(plan, NONE, num_tasks=3),
        lambda plan: moe.cluster_variance_loss(plan, (0, 0, 1, 1)),
        lambda plan: moe.local_entropy_loss(plan, NONE),
        lambda plan: moe.global_entropy_loss(plan, NONE),
        lambda plan: moe.consistency_loss(plan.logits, plan.logits),
        lambda plan: moe.distillation_loss(plan.logits, plan.logits, plan.logits.sum()),
        lambda plan: moe.layer_distillation_loss([plan.logits], [plan.logits]),
        lambda plan: moe.cka(plan.logits, plan.logits),
        lambda plan: norm_loss(plan.logits, plan.logits),
    ],
)
@pytest.mark.parametrize("valid", [False, True])
def test_no_rows_no_loss(term, valid):
    router, plan = nothing_routed()
    if valid:  # rows, none of which there is
        plan = router(torch.zeros(5, C), valid=torch.zeros(5, dtype=torch.bool)).of_valid()
    loss = term(plan)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-9)
    (loss + plan.weights.sum()).backward()  # and every process has a gradient to average
    assert not router.score.gate.weight.grad.any()


def test_no_rows_agree():
    _, plan = nothing_routed()
    assert moe.agreement(plan, plan) == 1


def test_cka_sees_through_rotation_and_scale():
    a = torch.randn(200, 6)
    turn, _ = torch.linalg.qr(torch.randn(6, 6))
    assert float(moe.cka(a, a)) == pytest.approx(1)
    for scale in (3, 1e-4, 1e6):
        assert float(moe.cka(scale * a, scale * a @ turn)) == pytest.approx(1, abs=1e-5)
    assert float(moe.cka(a, torch.randn(200, 6))) < 0.2
    alike = torch.stack([a, a @ turn])
    assert float(moe.simsmoe_loss(alike)) == pytest.approx(1, abs=1e-5)
    assert float(moe.simsmoe_loss(alike, threshold=1.1)) == 0


def test_cluster_terms():
    clusters = (0, 0, 1, 1)
    known = {  # inside less between clusters
        (0.25, 0.25, 0.25, 0.25): 0,
        (0.3, 0.3, 0.2, 0.2): 0 - 0.05**2,
        (0.6, 0.0, 0.2, 0.2): 0.3**2 / 2 - 0.05**2,
        (0.5, 0.5, 0.0, 0.0): -((2 - 1) / 2**2 / 2**2),  # the least
        (1.0, 0.0, 0.0, 0.0): 0.5**2 / 2 - 0.25**2,
    }
    for p, value in known.items():
        assert float(moe.cluster_variance_loss(made([p]), clusters)) == pytest.approx(value, abs=1e-7)
    logits = torch.zeros(1, E).add_(torch.tensor([0.1, 0.1, 0.0, 0.0])).requires_grad_()
    plan = made(logits.softmax(1))
    moe.cluster_variance_loss(plan, clusters).backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 2]  # away from uniform, towards the first cluster
    dropout = moe.ExpertDropout(0.95, clusters)
    alive = torch.isfinite(dropout(torch.zeros(500, E)))
    assert alive[:, :2].any(1).all()
    assert alive[:, 2:].any(1).all()
    assert alive.float().mean() < 0.6


def test_mutual_information_and_its_gradient():
    tasks = torch.arange(E).repeat(5)
    own = made(F.one_hot(tasks, E).float())
    independent = made(torch.full((5 * E, E), 1 / E))
    assert float(moe.mutual_information_loss(own, tasks)) == pytest.approx(-math.log(E))
    assert float(moe.mutual_information_loss(independent, tasks)) == pytest.approx(0, abs=1e-6)
    router = moe.switch_router(C, E)
    moe.mutual_information_loss(router(torch.randn(20, C)), tasks).backward()
    assert router.score.gate.weight.grad.abs().sum() > 0


def test_weight_diversity():
    assert float(moe.weight_diversity_loss(torch.eye(3)[:, None])) == 0
    assert float(moe.weight_diversity_loss(torch.ones(3, 2, 2))) == pytest.approx(1)


def test_distillation_from_an_equal_teacher_is_the_share_of_the_own_loss():
    logits, own = torch.randn(5, 3), torch.tensor(2.0)
    assert float(moe.distillation_loss(logits, logits, own, share=1.0)) == pytest.approx(0, abs=1e-6)
    assert float(moe.distillation_loss(logits, logits, own, share=0.25)) == pytest.approx(1.5)
    assert float(moe.distillation_loss(logits, -logits, own, share=1.0)) > 0


def test_layer_distillation_is_the_mean_error_of_layers():
    teacher = [torch.zeros(3, 2), torch.zeros(3, 4)]
    assert float(moe.layer_distillation_loss(teacher, teacher)) == 0
    assert float(moe.layer_distillation_loss([torch.ones(3, 2), torch.zeros(3, 4)], teacher)) == 0.5


# Schedules


def test_schedules_at_known_steps():
    router = moe.Router(moe.LinearScore(C, 8), moe.TopK(8), adjust=[moe.Temperature(), moe.ExpertDropout()])
    schedule = moe.RoutingSchedule(
        router,
        top_k=moe.Ramp(8, 2, until=0.5),
        temperature=moe.Ramp(2.0, 1.0),
        dropout=moe.Ramp(0.2, 0.0),
        frozen=[(0.0, 0.1)],
    )
    seen = []
    for share in (0.0, 0.25, 0.5, 1.0):
        schedule.step(share)
        learns = all(p.requires_grad for p in router.parameters())
        seen.append((router.choice.k, router.adjust[0].temperature, router.adjust[1].rate, learns))
    expected = [(8, 2.0, 0.2, False), (5, 1.75, 0.15, True), (2, 1.5, 0.1, True), (2, 1.0, 0.0, True)]
    for mine, theirs in zip(seen, expected, strict=True):
        assert mine == pytest.approx(theirs)
    assert router(rows()).top_k == 2
    with pytest.raises(ValueError, match="TopK"):
        moe.RoutingSchedule(moe.top_p_router(C, E), top_k=moe.Ramp(1, 2))
    with pytest.raises(ValueError, match="Temperature"):
        moe.RoutingSchedule(moe.switch_router(C, E), temperature=moe.Ramp(1, 2))
    with pytest.raises(ValueError, match="never learns"):
        moe.RoutingSchedule(moe.noisy_top_k_router(C, E), top_k=moe.Ramp(2, 1))
    with pytest.raises(ValueError, match="never learns"):
        moe.ElasticTopK(2, (1, 2), "normalised")
    with pytest.raises(ValueError, match="1 to 2"):
        moe.RoutingSchedule(moe.dual_router(C, (2, 2)), top_k=moe.Ramp(1, 3))
    with pytest.raises(ValueError, match="belongs to adjust"):
        moe.Router(moe.LinearScore(C, E), prefer=[moe.Temperature()])


def test_expert_dropout_of_zero_is_nothing_and_never_masks_all():
    logits = torch.randn(500, E)
    assert moe.ExpertDropout(0.0)(logits) is logits
    heavy = moe.ExpertDropout(0.99)
    assert torch.isfinite(heavy(logits)).any(1).all()
    assert heavy.eval()(logits) is logits
    plan = moe.Router(moe.LinearScore(C, E), moe.AllExperts(), adjust=[moe.ExpertDropout(0.5)])(rows())
    torch.testing.assert_close(plan.probabilities.sum(1), torch.ones(N))


def test_elastic_k_draws_in_training_and_any_k_serves_later():
    choice = moe.ElasticTopK(1, (1, 2, 4))
    router = moe.Router(moe.LinearScore(C, E), choice)
    assert {router(rows()).top_k for _ in range(40)} == {1, 2, 4}
    router.eval()
    for k in range(1, E + 1):
        choice.k = k
        assert router(rows()).top_k == k


@pytest.mark.parametrize("k", [1, 2, 4])
def test_places_are_made_for_the_k_that_was_drawn(k):
    """Even scores and a factor of E: nobody is dropped, whatever k is in evaluation."""
    choice = moe.ElasticTopK(1, (k,))
    router = moe.Router(moe.LinearScore(C, E), choice, capacity=moe.Capacity(float(E)))
    plan = router(rows())
    assert plan.top_k == k
    assert plan.kept is None or plan.kept.all()
    tight = moe.Router(router.score, choice, capacity=moe.Capacity(0.5))
    counts = torch.bincount((plan := tight(rows())).experts[plan.kept], minlength=E)
    assert counts.max() == math.ceil(0.5 * k * N / E)


def test_places_in_evaluation_are_made_for_all_that_are_run():
    capacity = moe.Capacity(1.0, evaluation_factor=1.0)
    for choice in (moe.RandomExperts(1), moe.LeastLoss(1)):
        router = moe.Router(moe.GivenScore(E), choice, capacity=capacity).eval()
        assert router(torch.randn(N, E)).kept.all()


def test_no_k_that_may_be_drawn_is_larger_than_there_are_experts():
    with pytest.raises(ValueError, match="top_k=5"):
        moe.Router(moe.LinearScore(C, E), moe.ElasticTopK(1, (1, 5)))


# Weights


@pytest.mark.parametrize("mode", ["soft", "normalised", "straight_through", "hard"])
def test_modes_differ_in_value_and_gradient(mode):
    router = moe.Router(moe.LinearScore(C, E), moe.TopK(2, mode))
    plan = router(rows())
    total = plan.weights.sum(1)
    if mode == "soft":
        torch.testing.assert_close(plan.weights, plan.probabilities.gather(1, plan.experts))
    else:
        torch.testing.assert_close(total, torch.ones(N))
    assert plan.weights.requires_grad == (mode != "hard")


def test_straight_through_has_the_gradient_of_soft():
    grads = []
    for mode in ("soft", "straight_through"):
        torch.manual_seed(0)
        router = moe.Router(moe.LinearScore(C, E), moe.TopK(1, mode))
        (router(rows()).weights * torch.arange(float(N))[:, None]).sum().backward()
        grads.append(router.score.gate.weight.grad)
    torch.testing.assert_close(*grads)


def test_a_gate_that_could_not_learn_is_refused():
    with pytest.raises(ValueError, match="never learns"):
        moe.TopK(1, "normalised")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: moe.TopK(1, "sfot"), "routing"),
        (lambda: moe.TopK(0), "top_k"),
        (lambda: moe.switch_router(C, E) and moe.Router(moe.LinearScore(C, 2), moe.TopK(3)), "top_k=3"),
        (lambda: moe.dual_router(C, (3, 2), 3), "top_k=3"),
        (lambda: moe.Capacity(0), "factor"),
        (lambda: moe.Capacity(1, "first"), "priority"),
        (lambda: moe.TopP(1.5), "p=1.5"),
        (lambda: moe.ExpertDropout(1.0), "rate"),
        (lambda: moe.Temperature(0), "temperature"),
        (lambda: moe.LinearScore(C, 0), "at least one expert"),
        (lambda: moe.FeedForwardExperts(C, 8, 2, "tanh"), "activation"),
        (lambda: moe.ConvExperts(C, 8, 2, 2), "odd"),
        (lambda: moe.Ramp(1, 2, 0.5, 0.5), "begin"),
        (lambda: moe.Fallback(moe.switch_router(C, E), C, 1.0), "quantile"),
    ],
)
def test_bad_options_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


# Telemetry


def test_health_of_known_plans():
    one = moe.routing_health(collapsed())
    assert (one.load, one.rows, one.dead) == ((1.0, 0.0, 0.0, 0.0), (8, 0, 0, 0), 3)
    assert one.load_entropy == one.row_entropy == one.marginal_entropy == 0
    assert one.gini == pytest.approx(1 - 1 / E)
    all_alike = moe.routing_health(even())
    assert all_alike.load_entropy == pytest.approx(1)
    assert all_alike.marginal_entropy == pytest.approx(1)
    assert all_alike.gini == pytest.approx(0, abs=1e-6)
    assert all_alike.row_entropy < 0.2
    assert (all_alike.dropped, all_alike.experts_per_row) == (0, 1)


def test_agreement_is_the_share_of_equal_choices():
    a, b = made(torch.eye(4)), made(torch.eye(4)[[0, 1, 3, 2]])
    assert moe.agreement(a, a) == 1
    assert moe.agreement(a, b) == 0.5
    with pytest.raises(ValueError, match="rows"):
        moe.agreement(a, collapsed())


def test_signals():
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(moe.frequency_bands(x, 3).sum(1), x)
    flat = moe.frequency_bands(torch.ones(1, 1, 16, 16))
    assert flat[:, :2].abs().max() < 1e-6
    assert moe.pooled(x).shape == (2, 6)
    signals = moe.with_presence(torch.ones(2, 3, 4), torch.tensor([[True, False, True]] * 2))
    assert signals.shape == (2, 15)
    assert not signals[:, 5:10].any()
    deep = moe.DepthSignals([4, 6], 5)([torch.ones(7, 4), torch.ones(7, 6)])
    assert deep.shape == (7, 5)


@pytest.mark.parametrize("experts", [1, 2, 16, 200])
@pytest.mark.parametrize("k", [1, 3])
def test_the_best_come_first_and_of_equals_the_first(experts, k):
    preference = torch.randint(-3, 4, (500, experts)).float()  # many are equal
    preference[:50, 0] = float("-inf")
    preference[50:60] = float("-inf")
    best = top(preference, min(k, experts))
    wanted = preference.argsort(dim=1, descending=True, stable=True)[:, : min(k, experts)]
    assert torch.equal(best, wanted)
    lost = torch.full((2, experts), torch.nan)
    assert 0 <= int(top(lost, 1).min()) <= int(top(lost, 1).max()) < experts  # of nothing, some expert


def test_entropy_is_a_share_of_the_most_there_can_be():
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    best = p.topk(1)
    plan = RoutingPlan(best.indices, best.values, p, p.log(), (4,), (3,))
    assert plan.entropy.tolist() == pytest.approx([1, 0, 0.5])
    one = torch.ones(2, 1)
    alone = RoutingPlan(torch.zeros(2, 1, dtype=torch.long), one, one, one.log(), (1,), (2,))
    assert alone.entropy.tolist() == [0, 0]
