import math

import pytest
import torch
from torch import nn

from geomoe import moe

C, E, N = 4, 3, 20


class Says(moe.ExpertBank):
    """Experts whose results are given: ``[E, K]``, the same for every row."""

    def __init__(self, results):
        super().__init__()
        self.results = torch.tensor(results)
        self.group_sizes = (len(results),)

    def expert(self, index, rows):
        return self.results[index].expand(len(rows), -1)


def test_all_are_run_and_then_weighed_by_what_they_say():
    bank = moe.FeedForwardExperts(C, 8, E)
    layer, trace = moe.OutputGatedMoE(bank, moe.confidence_logits), moe.RoutingTrace()
    rows = torch.randn(N, C, requires_grad=True)
    out = layer(rows, grid=(4, 5), trace=trace)
    every = torch.stack([bank.expert(e, rows) for e in range(E)], 1)  # [N, E, C]
    confidence = every.softmax(-1).amax(-1)
    gate = confidence / confidence.sum(1, keepdim=True)
    torch.testing.assert_close(out, (gate[..., None] * every).sum(1))
    torch.testing.assert_close(trace[0].gates, gate)
    assert trace[0].grid == (4, 5)
    out.square().sum().backward()
    assert rows.grad.abs().sum() > 0


def test_a_choice_of_one_takes_the_surest_and_a_replay_takes_another():
    bank = Says([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0]])
    layer = moe.OutputGatedMoE(bank, moe.confidence_logits, moe.TopK(1, "hard"))
    rows, trace = torch.zeros(N, C), moe.RoutingTrace()
    assert layer(rows, trace=trace)[0].tolist() == [3.0, 0.0]
    assert trace[0].experts.unique().tolist() == [1]
    other = moe.RoutingPlan(
        torch.full((N, 1), 2), torch.ones(N, 1), trace[0].probabilities, trace[0].logits, (E,), (N,)
    )
    assert layer(rows, trace=moe.Replay([other]))[0].tolist() == [1.0, 0.0]


def test_evidence_and_agreement_at_known_values():
    none = -100.0  # softplus 0
    results = torch.tensor(
        [[[none, none], [math.log(math.e**6 - 1), none]]]
    )  # evidence 0 and 6, of two classes
    belief = moe.evidence_logits(results).exp()
    assert belief.tolist()[0] == pytest.approx([0.0, 6 / 8], abs=1e-5)
    results = torch.full((1, 3, 2), -200.0, requires_grad=True)  # nobody has any: all count alike
    moe.evidence_logits(results).softmax(-1)[0, 0].backward()
    assert moe.evidence_logits(results).softmax(-1).tolist()[0] == pytest.approx([1 / 3] * 3)
    assert results.grad.isfinite().all()
    said = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [3.0, 1.0]]])
    assert moe.agreement_logits(said).tolist()[0] == pytest.approx(
        [-(1.5**2 + 0.5**2) / 2] * 2 + [-(9 + 1) / 2]
    )


def test_rows_are_shared_out_by_their_losses_and_all_answer_in_evaluation():
    losses = torch.tensor([[0.3, 0.1, 0.2], [0.0, 5.0, 5.0]])
    router = moe.Router(moe.GivenScore(3), moe.LeastLoss(1))
    assert router(-losses).experts.flatten().tolist() == [1, 0]
    assert router(-losses).weights.tolist() == [[1.0], [1.0]]
    router.choice.k = 2
    assert router(-losses).experts[0].tolist() == [1, 2]
    assert router(-losses).weights[0].tolist() == [0.5, 0.5]
    even = router.eval()(torch.zeros(2, 3))
    assert even.gates.tolist()[0] == pytest.approx([1 / 3] * 3)
    with pytest.raises(ValueError, match="k=0"):
        moe.LeastLoss(0)


def test_the_posterior_of_densities_is_the_gate_of_their_logarithms():
    log_density = torch.tensor([[math.log(0.2), math.log(0.6)]])
    router = moe.Router(moe.GivenScore(2, prior=True), moe.AllExperts())
    assert router(log_density).gates.tolist()[0] == pytest.approx([0.25, 0.75])
    with torch.no_grad():
        router.score.log_prior.copy_(torch.tensor([math.log(3.0), 0.0]))
    assert router(log_density).gates.tolist()[0] == pytest.approx([0.5, 0.5])
    router(log_density).weights[:, 0].sum().backward()
    assert router.score.log_prior.grad.abs().sum() > 0


def test_a_shared_expert_is_taken_by_a_share_of_each_row():
    shared = nn.Linear(C, C)
    gated = moe.GatedShared(shared, C)
    bank = moe.FeedForwardExperts(C, 8, E)
    layer, rows = moe.MoE(moe.switch_router(C, E), bank, shared=gated), torch.randn(N, C)
    share = torch.sigmoid(rows @ gated.gate.weight.T)
    assert ((share > 0) & (share < 1)).all()
    routed = moe.dispatch(bank, rows, layer.router(rows))
    torch.testing.assert_close(layer(rows), routed + share * shared(rows))
