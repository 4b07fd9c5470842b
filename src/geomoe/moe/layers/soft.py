"""Mixtures without choices: soft slots, and experts merged before they are run."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.experts.convolution import ConvExperts, DepthwiseExperts, HeterogeneousBank
from geomoe.moe.experts.joined import JoinedBank
from geomoe.moe.experts.rows import FeedForwardExperts, LowRankExperts
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.routing.choice import every
from geomoe.moe.routing.router import AnyRouter
from geomoe.moe.valid import present

__all__ = ["MergedMoE", "SoftMoE", "merge"]


class SoftMoE(nn.Module):
    """Every expert works on slots that are mixtures of all tokens (Puigcerver et al. 2024, section 2.1).

    ``D = softmax over tokens``, ``C = softmax over slots``, ``y = C f(Dᵀ x)``. Tokens and slot parameters
    are normalised, with a learned scale, as the paper's section 2.3 asks. A token's result depends on the
    other tokens of its sample.

    Args:
        bank: E experts on rows ``[n, C]``.
        channels: C.
        slots_per_expert: as many slots in all as tokens costs what a dense block does.
    """

    def __init__(self, bank: ExpertBank, channels: int, slots_per_expert: int = 1) -> None:
        super().__init__()
        self.bank, self.slots_per_expert = bank, slots_per_expert
        slots = bank.num_experts * slots_per_expert
        self.slots = nn.Parameter(torch.randn(slots, channels) / channels**0.5)
        self.scale = nn.Parameter(torch.ones(1))  # not a scalar: fully_shard takes none

    def gates(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Dispatch and combine weights, ``[B, T, S]`` each, for tokens ``[B, T, C]``.

        A token that is not ``valid`` (``[B, T]`` bool) is in no slot, and takes nothing from any.
        """
        with torch.autocast(x.device.type, enabled=False):
            slots = self.scale.float() * F.normalize(self.slots.float(), dim=-1)
            logits = F.normalize(x.float(), dim=-1) @ slots.T
            if valid is None:
                return logits.softmax(1), logits.softmax(2)
            there = valid[:, :, None]
            dispatched = logits.masked_fill(~there, torch.finfo(logits.dtype).min).softmax(1) * there
            return dispatched, logits.softmax(2) * there

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Tokens ``[B, T, C]`` to ``[B, T, C']``; of tokens that are not ``valid`` (``[B, T]`` bool) 0.

        Raises:
            ValueError: anything but ``[B, T, C]``; a trace that wants another plan carried out.

        What is traced is each token's combine weight by expert; there is no choice that could be replaced.
        """
        if x.dim() != 3:
            raise ValueError(
                f"soft slots mix the tokens of a sample: expected [B, T, C], not {list(x.shape)}"
            )
        if valid is not None:
            x = present(x.flatten(0, 1), valid.flatten()).view(x.shape)
        dispatched, combined = self.gates(x, valid)
        batch, tokens, _ = x.shape
        slots = torch.einsum("btc,bts->sbc", x, dispatched.to(x.dtype))  # [S, B, C]: sorted by expert
        mine = slots.reshape(self.bank.num_experts, self.slots_per_expert * batch, slots.shape[2])
        done = self.bank.each(mine)
        done = done.reshape(slots.shape[0], batch, done.shape[2])
        out = torch.einsum("bts,sbc->btc", combined.to(done.dtype), done)
        if trace is not None:
            p = combined.unflatten(2, (self.bank.num_experts, -1)).sum(-1).flatten(0, 1)  # [B * T, E]
            grid = (batch, tokens)
            plan = RoutingPlan(*every(p)[:3], p.log(), self.bank.group_sizes, grid)
            if valid is not None:
                there = valid.flatten()
                plan = replace(plan, valid=there).of_valid().among(there, grid)
            if trace.record(plan) is not plan:
                raise ValueError("a soft mixture chooses nothing, so that no other plan can be carried out")
        return out


def merge(bank: ExpertBank, x: Tensor, gates: Tensor) -> Tensor:
    """One expert for each sample, whose parameters are the mean of all experts' by the sample's gates.

    ``f(x; sum_e g_e theta_e)`` (SMEAR, Muqeeth et al. 2023; Lory, Zhong et al. 2024, by segment). Those that
    are linear in x (convolutions, low-rank ones, whose theta is the product ``A B``) give the sum of their
    results.

    Args:
        bank: feed-forward, low-rank or convolution experts, also banks made of linear ones.
        x: samples or segments, ``[N, T, C]`` for feed-forward and low-rank, ``[N, C, H, W]`` (padded with
            zeros) for convolutions.
        gates: ``[N, E]``.

    Raises:
        ValueError: experts whose parameters have no mean.
    """
    check_mergeable(bank)
    if isinstance(bank, HeterogeneousBank | JoinedBank):
        parts = gates.split([member.num_experts for member in bank], 1)
        return torch.stack([merge(member, x, part) for member, part in zip(bank, parts, strict=True)]).sum(0)

    def mixed(parameter: Tensor) -> Tensor:
        return torch.einsum("ne,e...->n...", gates.to(x.dtype), parameter.to(x.dtype))

    if isinstance(bank, ConvExperts | DepthwiseExperts):
        kernels = mixed(bank.kernels())  # [N, C_out, C / groups, k, k]
        number, groups = x.shape[0], x.shape[1] // kernels.shape[2]
        image = x.flatten(0, 1)[None]  # a group, or C groups, for each sample
        bias = mixed(bank.bias).flatten()
        dilation = bank.dilation if isinstance(bank, ConvExperts) else 1
        out = F.conv2d(
            image, kernels.flatten(0, 1), bias, padding=bank.reach, dilation=dilation, groups=number * groups
        )
        return out.view(number, bank.out_channels, *out.shape[2:])
    if isinstance(bank, LowRankExperts):
        low = torch.einsum("ntc,ecr,ne->nter", x, bank.a.to(x.dtype), gates.to(x.dtype))
        return bank.factor * torch.einsum("nter,ero->nto", low, bank.b.to(x.dtype))
    assert isinstance(bank, FeedForwardExperts)

    def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = torch.bmm(rows, mixed(weight))
        return out if bias is None else out + mixed(bias)[:, None]

    return linear(bank.act(linear(x, bank.up, bank.up_bias)), bank.down, bank.down_bias)


def check_mergeable(bank: ExpertBank) -> None:
    """Raise ValueError for experts that :func:`merge` cannot merge."""
    linear = (ConvExperts, DepthwiseExperts, LowRankExperts)
    members = list(bank) if isinstance(bank, HeterogeneousBank | JoinedBank) else []
    if isinstance(bank, (FeedForwardExperts, *linear)) or (
        members and all(isinstance(m, linear) for m in members)
    ):
        return
    names = ", ".join(sorted({type(member).__name__ for member in members or [bank]}))
    raise ValueError(
        f"merge: parameters of {names} have no mean; expected feed-forward, low-rank or convolution experts, "
        "or a bank made of the last two"
    )


class MergedMoE(nn.Module):
    """A router over samples or segments, and a bank that is merged for each by :func:`merge`.

    Args:
        router: sees one signal a sample; every expert counts, so its choice is most often ``AllExperts``.
        bank: the experts.
    """

    def __init__(self, router: AnyRouter, bank: ExpertBank) -> None:
        super().__init__()
        if router.num_experts != bank.num_experts:
            raise ValueError(
                f"the router knows {router.num_experts} experts, the bank has {bank.num_experts}"
            )
        check_mergeable(bank)
        self.router, self.bank = router, bank

    def forward(
        self,
        x: Tensor,
        signals: Tensor,
        trace: RoutingTrace | None = None,
        *,
        context: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """``x`` as :func:`merge` takes it, signals ``[N, C]``; samples that are not ``valid`` give 0."""
        plan = self.router(signals, None, context, valid)
        plan = plan if trace is None else trace.record(plan, self.router, signals)
        return merge(self.bank, present(x, plan.valid), plan.gates)
