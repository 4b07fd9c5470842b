"""The known value or property of every router."""

import itertools
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from geomoe import moe
from geomoe.moe.routing.assignment import balanced_assignment
from geomoe.moe.routing.capacity import limit
from tests.moe.plans import C, E, N, rows


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
