"""The known value or property of schedules, gate weights and telemetry."""

import math

import pytest
import torch

from geomoe import moe
from geomoe.moe.kernels.simplex import top
from geomoe.moe.plan import RoutingPlan
from tests.moe.plans import C, E, N, collapsed, even, made, rows


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
