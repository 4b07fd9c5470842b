"""Techniques at the values that their papers' definitions give."""

import math

import pytest
import torch

from geomoe import moe
from geomoe.moe.routing.score import smooth_step

C, E = 8, 4


def plan_of(probabilities, experts, weights=None, noise=None):
    p = torch.as_tensor(probabilities, dtype=torch.float32)
    chosen = torch.as_tensor(experts)
    weights = p.gather(1, chosen) if weights is None else weights
    return moe.RoutingPlan(chosen, weights, p, p.log(), (p.shape[1],), (len(p),), noise=noise)


def test_loss_free_balance_chooses_by_affinity_plus_bias_and_weighs_by_affinity():
    """Wang et al. 2024, equation 3: a certain sigmoid of 1 is outweighed by a bias of 0.6 on one of 0.5."""
    for gate, weight in (("sigmoid", 0.5), ("softmax", math.exp(0) / (math.exp(9) + 3))):
        bias = moe.LossFreeBias((E,), gate)
        router = moe.Router(moe.LinearScore(1, E), moe.TopK(1, gate=gate), prefer=[bias])
        with torch.no_grad():
            router.score.gate.weight.copy_(torch.tensor([[9.0], [0.0], [0.0], [0.0]]))
        x = torch.ones(1, 1)
        assert router(x).experts.item() == 0
        bias.bias[2] = 1.1  # above 1, which no affinity exceeds; on a logit of 9 it would do nothing
        plan = router(x)
        assert plan.experts.item() == 2
        assert plan.weights.item() == pytest.approx(weight, rel=1e-5)
        assert plan.probabilities.sum().item() == pytest.approx(1)
    by_logit = moe.LossFreeBias((E,))
    by_logit.bias[2] = 1.1
    assert moe.Router(router.score, prefer=[by_logit])(x).experts.item() == 0


def test_what_is_out_of_reach_stays_so_under_a_biased_affinity():
    bias = moe.LossFreeBias((E,), "sigmoid")
    bias.bias.fill_(5.0)
    preference = torch.tensor([[1.0, float("-inf"), 0.0, 0.0]])
    assert torch.isneginf(bias(preference)).tolist() == [[False, True, False, False]]


def test_a_bias_moves_the_experts_of_sparsemax_and_not_their_weights():
    bias = moe.LossFreeBias((3,))
    router = moe.Router(moe.LinearScore(3, 3), moe.Sparsemax(), prefer=[bias])
    with torch.no_grad():
        router.score.gate.weight.copy_(torch.eye(3))
    x = torch.tensor([[0.5, 0.3, -1.0]])
    assert router(x).gates.tolist()[0] == pytest.approx([0.6, 0.4, 0.0])
    bias.bias[0] = 0.3  # still the same two
    assert router(x).gates.tolist()[0] == pytest.approx([0.6, 0.4, 0.0])
    bias.bias[2] = 2.0  # 0.8, 0.3, 1.0: the first and third, of which the third has nothing by the logits
    assert router(x).gates.tolist()[0] == pytest.approx([1.0, 0.0, 0.0])
    biased = moe.Router(router.score, moe.Sparsemax(biased=True), prefer=[bias])
    assert biased(x).gates.tolist()[0] == pytest.approx([0.4, 0.0, 0.6], abs=1e-6)


def test_a_group_limit_keeps_the_groups_of_the_two_best_experts():
    limit = moe.GroupLimit((2, 2, 2), groups=1)
    # The best single expert is in the first group, the best pair in the second.
    kept = limit(torch.tensor([[1.0, 0.0, 0.7, 0.6, 0.5, 0.1]]))
    assert torch.isneginf(kept).tolist() == [[True, True, False, False, True, True]]
    by_one = moe.GroupLimit((2, 2, 2), groups=1, best=1)
    assert (
        torch.isneginf(by_one(torch.tensor([[1.0, 0.0, 0.7, 0.6, 0.5, 0.1]])))[0].tolist()[:2] == [False] * 2
    )
    for wrong in ({"groups": 4}, {"groups": 0}, {"groups": 1, "best": 3}):
        with pytest.raises(ValueError, match="expected 1 to"):
            moe.GroupLimit((2, 2, 2), **wrong)


def test_deepseeks_weights_sum_to_the_route_scale_and_lie_in_its_groups():
    router = moe.deepseek_router(C, 16, top_k=4, groups=4, top_groups=2, scale=2.5)
    torch.nn.init.normal_(router.prefer[0].bias, std=0.1)
    plan = router(torch.randn(50, C))
    torch.testing.assert_close(plan.weights.sum(1), torch.full((50,), 2.5))
    assert all(len(set((row // 4).tolist())) <= 2 for row in plan.experts)
    with pytest.raises(ValueError, match="no multiple"):
        moe.deepseek_router(C, 10, groups=4)
    with pytest.raises(ValueError, match="2 groups hold 8"):
        moe.deepseek_router(C, 16, top_k=9, groups=4, top_groups=2)


def test_sigmoids_too_small_for_a_number_still_have_shares():
    router = moe.Router(moe.GivenScore(3), moe.TopK(2, gate="sigmoid"))
    assert router(torch.full((1, 3), -200.0)).probabilities.tolist()[0] == pytest.approx([1 / 3] * 3)
    s = torch.tensor([[0.9, 0.3, 0.6]])
    torch.testing.assert_close(router(s.logit()).probabilities, s / s.sum())


def test_damped_dual_ascent_rests_where_the_load_is_even_and_is_bounded():
    free, damped = moe.DualAscent((2,)), moe.DualAscent((2,), damping=0.5)
    everything = plan_of([[1.0, 0.0]] * 10, [[0]] * 10)
    for _ in range(200):
        free.update([everything], 0.1)
        damped.update([everything], 0.1)
    assert free.bias.tolist() == pytest.approx([-0.5 * 0.1 * 200, 0.5 * 0.1 * 200], rel=1e-5)
    assert damped.bias.tolist() == pytest.approx([-1.0, 1.0], abs=1e-3)  # error / damping
    even = plan_of([[0.5, 0.5]] * 10, [[0]] * 5 + [[1]] * 5)
    for _ in range(200):
        damped.update([even], 0.1)
    assert damped.bias.abs().max() < 1e-3
    with pytest.raises(ValueError, match="damping=-1"):
        moe.DualAscent((2,), damping=-1)


def test_dselect_for_any_number_of_experts_and_its_regulariser():
    score = moe.DSelectScore(1, 6, selectors=1)
    assert score.width == 3
    router = moe.Router(score, moe.AllExperts(1e-12))
    assert router(torch.randn(5, 1)).probabilities.sum(1).tolist() == pytest.approx([1.0] * 5)

    def regulariser(*codes):
        with torch.no_grad():
            score.to_code.weight.zero_()
            score.to_code.bias.copy_(torch.tensor(codes))
        return score.regulariser(torch.zeros(1, 1)).item()

    assert regulariser(1.0, 0.0 - 1.0, 1.0) == pytest.approx(0, abs=1e-5)  # expert 5, certain
    assert regulariser(0.0, 0.0, -1.0) == pytest.approx(math.log(4), rel=1e-5)  # one of 0 to 3
    # Half of its weight on 4 and 5, half on 6 and 7, which there are not.
    assert regulariser(0.0, 0.0, 1.0) == pytest.approx(2 * 0.25 * math.log(4) + 1 / 0.5 - 1, rel=1e-5)
    assert regulariser(1.0, 1.0, 1.0) > 1e5  # all of it lost
    assert smooth_step(torch.tensor(0.0), 1.0) == 0.5
    full = moe.DSelectScore(C, 4)
    full.regulariser(torch.randn(9, C)).backward()
    assert full.to_code.weight.grad.abs().sum() > 0


def test_entropy_at_its_known_values():
    assert float(moe.entropy_loss(plan_of([[0.25] * 4], [[0]]))) == pytest.approx(math.log(4))
    assert float(moe.entropy_loss(plan_of([[1.0, 0, 0, 0]], [[0]]))) == pytest.approx(0, abs=1e-6)
    router = moe.top_p_router(C, E)
    moe.entropy_loss(router(torch.randn(20, C))).backward()
    assert router.score.gate.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("k", [1, 2])
def test_load_and_importance_even_and_collapsed(k):
    """0 where all share the load, E / k - 1 where k experts have all of it: E - 1 for one."""
    rows = 12
    even = torch.stack([torch.arange(rows) % E, (torch.arange(rows) + 1) % E], 1)[:, :k]
    collapsed = torch.arange(k).expand(rows, k)
    for experts, value in ((even, 0.0), (collapsed, E / k - 1)):
        clean = torch.zeros(rows, E).scatter_(1, experts, 100.0)
        noise = moe.NoisyLogits(clean, torch.ones(rows, E), clean)
        weights = torch.full((rows, k), 1 / k)
        plan = plan_of(clean.softmax(1), experts, weights, noise)
        assert float(moe.load_loss(plan)) == pytest.approx(value, abs=1e-5)
        assert float(moe.importance_loss(plan)) == pytest.approx(value, abs=1e-5)


def test_stochastic_experts_are_random_at_inference_where_that_is_asked_for():
    router = moe.stochastic_router(C, E, ensemble=False).eval()
    x = torch.randn(400, C)
    plan = router(x)
    assert plan.top_k == 1
    assert not router.row_independent
    assert torch.equal(plan.experts, router(x).experts)  # the same for the same call
    assert min(moe.load(plan).tolist()) > 0.15
    assert moe.stochastic_router(C, E).eval()(x).top_k == E
