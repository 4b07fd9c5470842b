"""Gates over what experts say: all are run first, and weighed by their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank, Rows, device_of, exporting
from geomoe.moe.kernels.simplex import top
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.routing.choice import AllExperts, Choice, Selection, every
from geomoe.moe.settings import saved
from geomoe.moe.units import Neighbourhoods
from geomoe.moe.valid import present

__all__ = ["LeastLoss", "OutputGatedMoE", "agreement_logits", "confidence_logits", "evidence_logits"]


class OutputGatedMoE(nn.Module):
    """Every expert on every row, then weights from the results: confidence, evidence, agreement.

    The same :class:`~geomoe.moe.plan.RoutingPlan` as of any layer, made after the bank has run; a choice of
    k experts weighs and does not save work.

    Args:
        bank: E experts on rows.
        score: logits ``[N, E]`` from results ``[N, E, ...]``: a function of this module, or a module.
        choice: which are weighed; all by default.
    """

    def __init__(
        self, bank: ExpertBank, score: Callable[[Tensor], Tensor], choice: Choice | None = None
    ) -> None:
        super().__init__()
        self.bank, self.score = bank, score
        self.choice = AllExperts() if choice is None else choice

    def forward(
        self,
        rows: Rows,
        *,
        grid: tuple[int, ...] | None = None,
        valid: Tensor | None = None,
        trace: RoutingTrace | None = None,
    ) -> Tensor:
        """Results ``[N, ...]``; arguments as of :class:`~geomoe.moe.layers.layer.MoE`."""
        rows = rows if isinstance(rows, Neighbourhoods) else present(rows, valid)
        results = self.results(rows)
        weights = self.weights(results, grid=grid, valid=valid, trace=trace)
        return torch.einsum("ne,ne...->n...", weights.to(results.dtype), results)

    def weights(
        self,
        results: Tensor,
        *,
        grid: tuple[int, ...] | None = None,
        valid: Tensor | None = None,
        trace: RoutingTrace | None = None,
    ) -> Tensor:
        """``[N, E]``, how much each of ``results`` ``[N, E, ...]`` counts; the rest as of :meth:`forward`."""
        with torch.autocast(results.device.type, enabled=False):
            logits = self.score(results.float())
            selection: Selection = self.choice(logits, logits)
        experts, weights, probabilities, kept = selection
        grid = (results.shape[0],) if grid is None else grid
        plan = RoutingPlan(experts, weights, probabilities, logits, self.bank.group_sizes, grid, kept)
        plan = plan if valid is None else replace(plan, valid=valid).of_valid().among(valid, grid)
        plan = plan if trace is None else trace.record(plan, self)
        return plan.gates

    def results(self, rows: Rows) -> Tensor:
        """``[N, E, ...]``, what every expert says of every row."""
        number = self.bank.num_experts
        if exporting():
            return torch.stack([self.bank.everywhere(e, rows) for e in range(number)], 1)
        index = torch.arange(rows.shape[0], device=device_of(rows))
        done = self.bank.run(rows, index.repeat(number), (rows.shape[0],) * number)
        return torch.movedim(done.unflatten(0, (number, rows.shape[0])), 0, 1)


def confidence_logits(results: Tensor) -> Tensor:
    """``[N, E]`` log of the largest probability that each expert gives, of class logits ``[N, E, K]``."""
    return results.log_softmax(-1).amax(-1)


def evidence_logits(results: Tensor) -> Tensor:
    """``[N, E]`` log of the belief ``1 - K / S`` of evidential experts, S the sum of ``softplus(r) + 1``.

    Of class outputs ``[N, E, K]``, K classes, whose softplus is evidence (Sensoy et al. 2018): an expert
    without evidence has no weight beside one with some.
    """
    evidence = F.softplus(results).sum(-1).clamp_min(torch.finfo(results.dtype).tiny)
    return (evidence / (evidence + results.shape[-1])).log()


def agreement_logits(results: Tensor) -> Tensor:
    """``[N, E]`` minus the mean squared distance of each expert's result to the mean of the others'.

    Of results ``[N, E, ...]``, E of 2 or more.
    """
    others = (results.sum(1, keepdim=True) - results) / (results.shape[1] - 1)
    return -(results - others).square().flatten(2).mean(-1)


class LeastLoss(Choice):
    """While training, the k experts of least loss on a row, with weight 1 / k; in evaluation all, evenly.

    For assignments driven by losses (ensembles whose members divide the samples among them): the router is
    ``Router(GivenScore(E), LeastLoss(k))``, its rows ``-losses`` ``[N, E]``; a fall of k over the run is a
    :class:`~geomoe.moe.routing.schedule.Ramp`. No gradient passes. In evaluation losses are zeros.
    """

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k}: expected a whole number from 1")
        self.k = k
        saved(self, "k")

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        if not self.training:
            return every(torch.full_like(logits, 1 / logits.shape[1]))
        experts = top(preference, self.k)
        weights = logits.new_full(experts.shape, 1 / self.k)
        return Selection(experts, weights, torch.zeros_like(logits).scatter_(1, experts, 1 / self.k))
