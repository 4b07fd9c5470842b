"""The known value or property of every balance term and auxiliary loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geomoe import moe
from geomoe.moe.kernels.simplex import sparsemax
from geomoe.moe.surgery import norm_loss
from tests.moe.plans import C, E, N, collapsed, even, made, rows


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
        moe.even_entropy_loss,
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
