"""Balance and capacity inside each image, and entropies inside each modality."""

import math

import pytest
import torch

from geomoe import moe

C, E = 8, 4


def plan_of(experts, grid):
    chosen = torch.tensor(experts, dtype=torch.int64)[:, None]
    p = torch.nn.functional.one_hot(chosen[:, 0], E).float()
    return moe.RoutingPlan(chosen, torch.ones(len(chosen), 1), p, p.log(), (E,), grid)


def test_balance_inside_each_image_sees_what_the_sum_of_them_hides():
    plan = plan_of([0] * 4 + [1] * 4 + [2] * 4 + [3] * 4, (4, 4))  # each image has one expert, the batch all
    assert float(moe.switch_loss(plan)) == pytest.approx(1)
    inside = [float(moe.switch_loss(sample)) for sample in plan.samples()]
    assert inside == pytest.approx([E] * 4)
    assert plan.samples()[0].grid == (1, 4)
    with pytest.raises(ValueError, match="no whole samples"):
        plan_of([], (0,)).samples()


@pytest.mark.parametrize("priority", ["order", "gate"])
def test_places_inside_each_image_do_not_depend_on_the_others(priority):
    capacity = moe.Capacity(1.0, priority, 1.0, per_sample=True)
    router = moe.Router(moe.LinearScore(C, E), moe.TopK(2), capacity=capacity)
    rows = torch.randn(3 * 10, C) + 1
    together = router(rows, (3, 10))
    for i in range(3):
        alone = router(rows[10 * i : 10 * i + 10], (1, 10))
        assert torch.equal(together.kept[10 * i : 10 * i + 10], alone.kept)
        assert torch.bincount(alone.experts[alone.kept], minlength=E).max() <= math.ceil(2 * 10 / E)
    assert together.dropped.any()


def test_limoes_entropies():
    """The first modality uses all experts with certainty; each row of the second is undecided between two."""
    certain = torch.eye(E).repeat(2, 1)
    undecided = torch.tensor([[0.5, 0.5, 0, 0]]).repeat(2, 1)
    p = torch.cat([certain, undecided])
    plan = moe.RoutingPlan(p.argmax(1, keepdim=True), torch.ones(10, 1), p, p.log(), (E,), (10,))
    modality = torch.tensor([0] * 8 + [1] * 2)
    assert float(moe.local_entropy_loss(plan, modality)) == pytest.approx((0 + math.log(2)) / 2, abs=1e-6)
    short = math.log(4) - math.log(2)
    assert float(moe.global_entropy_loss(plan, modality)) == pytest.approx((0 + short) / 2, abs=1e-6)
    assert float(moe.global_entropy_loss(plan, modality, math.log(2))) == pytest.approx(0, abs=1e-6)
    router = moe.switch_router(C, E)
    learning = router(torch.randn(10, C))
    (moe.local_entropy_loss(learning, modality) + moe.global_entropy_loss(learning, modality)).backward()
    assert router.score.gate.weight.grad.abs().sum() > 0
