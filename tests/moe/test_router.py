import pytest
import torch

from geomoe.moe import DualRouter, RoutingPlan, importance_loss, routing_health, switch_loss

GRID = (1, 6, 7)
SIZES = (3, 2)


def plan_of(mode="soft", top_k=1, signals=None, seed=0):
    torch.manual_seed(seed)
    router = DualRouter(8, SIZES, top_k, mode)
    x = torch.randn(42, 8) if signals is None else signals
    return router, router(x, GRID)


@pytest.mark.parametrize("mode", ["soft", "straight_through", "hard"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_plan_is_a_distribution_and_chooses_from_the_top_group(mode, top_k):
    _router, plan = plan_of(mode, top_k)
    torch.testing.assert_close(plan.probabilities.sum(1), torch.ones(42))
    torch.testing.assert_close(plan.logits.softmax(1), plan.probabilities)
    group = torch.stack([plan.probabilities[:, :3].sum(1), plan.probabilities[:, 3:].sum(1)], 1).argmax(1)
    assert (plan.groups == group[:, None]).all()
    assert plan.experts.shape == (42, top_k)
    assert (plan.members < torch.tensor(SIZES)[plan.groups]).all()


def test_probability_is_the_product_of_equations_5_and_6():
    torch.manual_seed(1)
    router = DualRouter(8, SIZES)
    x = torch.randn(42, 8)
    plan = router(x, GRID)
    p_group = (x @ router.to_group.weight.T).softmax(1)
    p_expert = ((x + router.group_embedding[1]) @ router.to_expert[1].weight.T).softmax(1)
    torch.testing.assert_close(plan.probabilities[:, 3:], p_group[:, 1:] * p_expert)


def test_modes_differ_in_weight_and_gradient():
    _, soft = plan_of("soft")
    _, straight = plan_of("straight_through")
    _, hard = plan_of("hard")
    torch.testing.assert_close(soft.weights, soft.probabilities.gather(1, soft.experts))
    torch.testing.assert_close(straight.weights, torch.ones(42, 1))
    torch.testing.assert_close(hard.weights, torch.ones(42, 1))
    assert soft.weights.requires_grad
    assert straight.weights.requires_grad
    assert not hard.weights.requires_grad


def test_straight_through_has_the_gradient_of_soft():
    grads = []
    for mode in ("soft", "straight_through"):
        router, plan = plan_of(mode)
        (plan.weights * torch.arange(42.0)[:, None]).sum().backward()
        grads.append(router.to_group.weight.grad)
    torch.testing.assert_close(*grads)


def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    router, x = DualRouter(8, SIZES), torch.randn(42, 8)
    torch.testing.assert_close(router(x, GRID).probabilities[5:9], router(x[5:9], (1, 2, 2)).probabilities)


@pytest.mark.parametrize("kwargs", [{"mode": "sfot"}, {"top_k": 3}, {"top_k": 0}])
def test_bad_options_are_named(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs)).replace("mode", "routing")):
        DualRouter(8, SIZES, **kwargs)


def made(probabilities):
    p = torch.tensor(probabilities)
    return RoutingPlan(
        p.argmax(1, keepdim=True), p.amax(1, keepdim=True), p, p.log(), (p.shape[1],), (1, 1, len(p))
    )


def test_balance_terms_at_their_known_values():
    collapsed = made([[1.0, 0.0, 0.0, 0.0]] * 4)
    even = made(
        [[0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01], [0.01, 0.01, 0.97, 0.01], [0.01] * 3 + [0.97]]
    )
    assert float(importance_loss(collapsed)) == pytest.approx(3)
    assert float(switch_loss(collapsed)) == pytest.approx(4)
    assert float(importance_loss(even)) == pytest.approx(0, abs=1e-12)
    assert float(switch_loss(even)) == pytest.approx(1)


def test_health_of_known_plans():
    collapsed = routing_health(made([[1.0, 0.0]] * 4))
    assert (collapsed.load, collapsed.dead, collapsed.confidence) == ((1.0, 0.0), 1, 1.0)
    assert collapsed.load_entropy == collapsed.row_entropy == 0
    even = routing_health(made([[0.5, 0.5], [0.4999999, 0.5000001]]))
    assert even.load_entropy == pytest.approx(1)
    assert even.row_entropy == pytest.approx(1)
    assert even.dead == 0


def test_the_bias_evens_the_load_and_leaves_weights_alone():
    torch.manual_seed(0)
    router = DualRouter(8, (2, 2))
    x = torch.randn(400, 8) + 2  # a common part, so that one expert would take nearly all
    before = router(x, (1, 20, 20))
    for _ in range(600):
        router.rebalance(router(x, (1, 20, 20)), 0.05)
    after = router(x, (1, 20, 20))
    assert min(routing_health(after).load) > 0.2 > min(routing_health(before).load)
    assert torch.equal(before.probabilities, after.probabilities)
    torch.testing.assert_close(after.weights, after.probabilities.gather(1, after.experts))
