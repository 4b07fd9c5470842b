"""AdapterMoE: low-rank experts beside a linear layer that keeps its weights; a router chooses for each token.

Adapters after LoRA (Hu et al. 2022), several of them as in MoLE (Wu et al. 2024); their ranks may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from torch import Tensor, nn

from geomoe.models.twin import Twin, twin_of
from geomoe.moe import JoinedBank, LowRankExperts, MoE, Router
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.units import Tokens

__all__ = ["AdapterMoE", "freeze_base"]


class AdapterMoE(nn.Linear):
    """``W x + b + sum of g_e B_e A_e x``: what it is without adapters until these have learned.

    Its own weights go by the names that they have in a linear layer, so that weights of a network without
    adapters fit one with them.

    Args:
        inputs: width of the input.
        outputs: width of the result.
        ranks: of each expert.
        router: of ``inputs`` channels; knows as many experts as there are ranks.
        twin: what replaces the mixture.
    """

    def __init__(
        self, inputs: int, outputs: int, ranks: Sequence[int], router: Router, twin: Twin = "none"
    ) -> None:
        super().__init__(inputs, outputs)
        banks = [LowRankExperts(inputs, outputs, rank, len(list(same))) for rank, same in groupby(ranks)]
        self.moe = twin_of(MoE(router, JoinedBank(banks)), twin)

    def forward(self, input: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """``[B, ..., inputs]`` to ``[B, ..., outputs]``; the plan has a row for each token."""
        tokens = Tokens.of(input)
        added = self.moe(tokens.to_rows(input), grid=tokens.grid, trace=trace)
        return super().forward(input) + tokens.from_rows(added)


def freeze_base(model: nn.Module, head: nn.Module | None = None) -> None:
    """Let nothing of ``model`` learn but its adapters, with their routers, and its ``head``."""
    adapters = [part.moe for part in model.modules() if isinstance(part, AdapterMoE)]
    learning = [p for moe in adapters for p in moe.parameters() if p.requires_grad]  # but frozen routers
    model.requires_grad_(False)
    if head is not None:
        head.requires_grad_(True)
    for parameter in learning:
        parameter.requires_grad_(True)
