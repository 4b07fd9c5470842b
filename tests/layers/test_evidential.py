"""Evidence and its fusion, against values by hand."""

import math

import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence

from geomoe.layers.evidential import (
    belief,
    confidence_weights,
    dempster,
    dirichlet,
    evidential_loss,
    expected,
    uncertainty,
    uniform_divergence,
    weighted_fusion,
)

NINE = torch.tensor([10.0, 1, 1])  # evidence (9, 0, 0)


def some(*shape):
    return 1 + 5 * torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_without_evidence_every_class_is_alike_and_nothing_is_known():
    alpha = dirichlet(torch.full((4,), -200.0))
    assert expected(alpha).tolist() == [0.25] * 4
    assert uncertainty(alpha) == 1
    assert belief(alpha).sum() == 0


def test_evidence_of_nine():
    assert belief(NINE).tolist() == [0.75, 0, 0]
    assert uncertainty(NINE) == 0.25
    torch.testing.assert_close(expected(NINE), torch.tensor([10, 1, 1]) / 12)
    back = dirichlet(torch.tensor([math.log(math.expm1(9.0)), -200, -200]))
    torch.testing.assert_close(back, NINE)


def test_divergence_is_that_of_dirichlet_distributions():
    assert uniform_divergence(torch.ones(5)) == pytest.approx(0, abs=1e-6)
    alpha = some(7, 4)
    theirs = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones(7, 4, dtype=torch.float64)))
    torch.testing.assert_close(uniform_divergence(alpha), theirs)


def test_loss_is_the_expected_cross_entropy_and_the_evidence_for_other_classes():
    alpha = torch.tensor([[10.0, 1, 1], [1, 10, 1]])
    right, wrong = evidential_loss(alpha, torch.tensor([0, 0]), 0.0).tolist()
    # digamma(12) - digamma(10) = 1/10 + 1/11; digamma(12) - digamma(1) = 1 + 1/2 + ... + 1/11
    assert right == pytest.approx(1 / 10 + 1 / 11, rel=1e-5)
    assert wrong == pytest.approx(sum(1 / n for n in range(1, 12)), rel=1e-5)
    more = evidential_loss(alpha, torch.tensor([0, 0]), 0.5) - torch.tensor([right, wrong])
    assert more[0] == pytest.approx(0, abs=1e-5), "evidence for the true class is no fault"
    assert more[1] == pytest.approx(0.5 * float(uniform_divergence(alpha[1])), rel=1e-5)


def test_loss_is_monte_carlo_s():
    torch.manual_seed(0)
    alpha = torch.tensor([3.0, 2, 1.5])
    drawn = -Dirichlet(alpha).sample((100_000,))[:, 1].log().mean()
    assert evidential_loss(alpha, torch.tensor(1), 0.0) == pytest.approx(float(drawn), abs=0.01)


def test_loss_takes_any_shape_and_gives_every_output_a_gradient():
    logits = torch.randn(2, 5, 3, requires_grad=True)
    loss = evidential_loss(dirichlet(logits), torch.randint(3, (2, 5)))
    assert loss.shape == (2, 5)
    loss.sum().backward()
    assert logits.grad.ne(0).all()


def test_relative_confidence():
    weights = confidence_weights(torch.tensor([[0.25, 1.0, 0.75], [1, 1, 1], [1, 0.2, 1]]))
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0, 0.25], [1 / 3, 1 / 3, 1 / 3], [0, 1, 0]]))


def test_what_is_absent_has_no_weight_whatever_it_says():
    alpha = some(4, 3, 5)
    present = torch.tensor([[True, True, False]]).expand(4, 3)
    spoilt = alpha.masked_fill(~present[..., None], torch.nan)
    weights = confidence_weights(uncertainty(spoilt), present)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, dtype=torch.float64))
    of_two = confidence_weights(uncertainty(alpha[:, :2]))
    torch.testing.assert_close(weighted_fusion(spoilt, weights), weighted_fusion(alpha[:, :2], of_two))
    torch.testing.assert_close(dempster(spoilt, present), dempster(alpha[:, :2]))
    assert confidence_weights(torch.full((2,), torch.nan), torch.zeros(2).bool()).tolist() == [0, 0]


def test_dempster_by_hand():
    """b (.6, .2), u .2 and b (.4, .4), u .2: C = .24 + .08 = .32."""
    two = torch.tensor([[0.6, 0.2], [0.4, 0.4]]) * 10 + 1  # S = K / u = 10
    fused = dempster(two)
    torch.testing.assert_close(belief(fused), torch.tensor([0.44, 0.2]) / 0.68)
    assert uncertainty(fused) == pytest.approx(0.04 / 0.68, rel=1e-5)


def test_dempster_s_rule_has_no_order_and_a_neutral_answer():
    alpha = some(6, 3, 4)
    torch.testing.assert_close(dempster(alpha), dempster(alpha.flip(1)))
    neutral = torch.cat([alpha, torch.ones(6, 1, 4, dtype=torch.float64)], 1)
    torch.testing.assert_close(dempster(neutral), dempster(alpha))
    assert (uncertainty(dempster(alpha)) < uncertainty(alpha).amin(1)).all(), "agreement makes surer"


def test_total_conflict_leaves_numbers():
    fused = dempster(torch.tensor([[1e6, 1.0], [1, 1e6]]))
    assert fused.isfinite().all()
    torch.testing.assert_close(expected(fused), torch.tensor([0.5, 0.5]))
