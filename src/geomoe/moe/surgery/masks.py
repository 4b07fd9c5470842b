"""Experts as learned masks of one dense block (ToMoE, Gao et al. 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank, linear
from geomoe.moe.experts.rows import Activation, FeedForwardExperts
from geomoe.moe.kernels.blocks import ACTIVATIONS
from geomoe.moe.surgery.upcycle import check_biases

__all__ = ["MaskedExperts"]


class MaskedExperts(ExpertBank):
    """E experts, each the dense block with a mask on its neurons; the masks are learned and the block rests.

    While training, a mask is drawn from its logits by the Gumbel-sigmoid trick and made hard, with the
    gradient of the soft one; in evaluation a neuron is on where its logit is above 0. Masks start all on,
    as the dense block.

    Args:
        up, down: the block is ``down(act(up(x)))``; frozen.
        num_experts: E.
        activation: of the block.
        start: initial logit.
        temperature: of the Gumbel-sigmoid.
    """

    shares = True

    def __init__(
        self,
        up: nn.Linear,
        down: nn.Linear,
        num_experts: int,
        activation: Activation = "gelu",
        start: float = 3.0,
        temperature: float = 0.4,
    ) -> None:
        super().__init__()
        check_biases(up, down)
        self.up, self.down = up.requires_grad_(False), down.requires_grad_(False)
        self.group_sizes, self.activation, self.temperature = (num_experts,), activation, temperature
        self.logits = nn.Parameter(torch.full((num_experts, up.out_features), start))

    def row_flops(self) -> tuple[int, ...]:
        """Of the neurons that are on: what :meth:`separate` will cost."""
        per_neuron = 2 * (self.up.in_features + self.down.out_features)
        return tuple(per_neuron * on for on in (self.logits > 0).sum(1).tolist())

    def mask(self, index: int) -> Tensor:
        """``[H]`` of 0 and 1, drawn."""
        logits = self.logits[index]
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((logits + uniform.logit()) / self.temperature)
        return (soft > 0.5).to(soft.dtype).detach() + soft - soft.detach()

    def expert(self, index: int, rows: Tensor) -> Tensor:
        if not self.training:
            on = self.logits[index] > 0
            hidden = ACTIVATIONS[self.activation].forward(
                linear(rows, self.up.weight[on].T, _of(self.up.bias, on))
            )
            return linear(hidden, self.down.weight[:, on].T, self.down.bias)
        hidden = ACTIVATIONS[self.activation].forward(linear(rows, self.up.weight.T, self.up.bias))
        return linear(hidden * self.mask(index).to(rows.dtype), self.down.weight.T, self.down.bias)

    def size_loss(self, share: float) -> Tensor:
        """Squared distance of the mean share of neurons that are on from ``share`` (0 to 1)."""
        return (torch.sigmoid(self.logits).mean() - share).square()

    @torch.no_grad()
    def separate(self) -> list[FeedForwardExperts]:
        """Each expert on its own, with the neurons that are on alone: same results, less work."""
        done = []
        for logits in self.logits:
            on = (logits > 0).nonzero().squeeze(1)
            bank = FeedForwardExperts(
                self.up.in_features, max(len(on), 1), 1, self.activation, bias=self.up.bias is not None
            ).to(self.up.weight)
            bank.up.zero_()
            bank.down.zero_()
            bank.up[0, :, : len(on)] = self.up.weight[on].T
            bank.down[0, : len(on)] = self.down.weight.T[on]
            if bank.up_bias is not None and bank.down_bias is not None:
                bank.up_bias[0, : len(on)] = self.up.bias[on]
                bank.down_bias[0] = self.down.bias
            done.append(bank)
        return done


def _of(bias: Tensor | None, on: Tensor) -> Tensor | None:
    return None if bias is None else bias[on]
