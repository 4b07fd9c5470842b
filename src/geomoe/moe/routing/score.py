"""Scores: the gate logits of every expert for every row, before anything is selected.

A score is a module that takes rows ``[N, C]`` (hashes take ids ``[N]``) and, where it is conditioned, a
context ``[N, D]``, and gives logits ``[N, E]`` in float32. To write a new router is most often to write a
new score.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.kernels.simplex import log_softmax, score
from geomoe.moe.weights import check_group_sizes

__all__ = [
    "ConditionedScore",
    "CosineScore",
    "DSelectScore",
    "FrozenScore",
    "Gate",
    "HashScore",
    "HierarchicalScore",
    "HyperplaneScore",
    "LinearScore",
    "Score",
]


class Score(nn.Module):
    """Base of all scores.

    Args:
        group_sizes: experts in each group; ``(E,)`` where there are no groups.

    Attributes:
        takes_ids: whether rows are ids ``[N]`` and not ``[N, C]``.
        takes_context: whether :meth:`forward` makes use of a context.
    """

    takes_ids = False
    takes_context = False

    def __init__(self, group_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.group_sizes = check_group_sizes(group_sizes)

    @property
    def num_experts(self) -> int:
        return sum(self.group_sizes)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits ``[N, E]`` of ``rows``."""
        raise NotImplementedError


class Gate(nn.Linear):
    """A linear layer in the precision of its rows ``[N, C]``, whatever that of its weights.

    What scores are made of: under ``fully_shard`` with bfloat16 parameters ``nn.Linear`` would refuse the
    rows, which a router sees in single precision.
    """

    def forward(self, input: Tensor) -> Tensor:
        return score(input, self.weight, self.bias)


class LinearScore(Score):
    """``x W``, the gate of most systems (Jacobs et al. 1991, Shazeer et al. 2017).

    Args:
        channels: width of the rows.
        num_experts: E.
        gain: factor on nn.Linear's initial weights; 0 starts undecided, as Shazeer et al. do.
    """

    def __init__(self, channels: int, num_experts: int, gain: float = 1.0) -> None:
        super().__init__((num_experts,))
        self.gate = Gate(channels, num_experts, bias=False)
        self.gate.weight.data *= gain

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        logits: Tensor = self.gate(rows)
        return logits


class HierarchicalScore(Score):
    """A group, then an expert of that group: ``softmax = p_group * p_expert`` (MFG-HMoE, equations 5 and 6).

    ``p_i = softmax_i(W x)`` over groups; inside group i, ``p_j = softmax_j(W_i (x + PE_i))``, PE an
    embedding of the group. Every group's gate is evaluated, so that the softmax of the logits is the full
    ``p_i * p_j``. It is the hierarchical mixture of Jordan and Jacobs (1994) with one gate more.

    Args:
        channels: width of the rows.
        group_sizes: experts in each group.
        gain: factor on nn.Linear's initial weights. An undecided router gives every expert a weight near 1
            / E (equation 7 would start at 1/16 of a plain layer's scale), and its choice is noise.
        bias: whether gates have one, 0 at the start, as in the released program.
    """

    def __init__(
        self, channels: int, group_sizes: tuple[int, ...], gain: float = 4.0, bias: bool = False
    ) -> None:
        super().__init__(group_sizes)
        self.to_group = nn.Linear(channels, len(group_sizes), bias=bias)
        self.to_expert = nn.ModuleList(nn.Linear(channels, size, bias=bias) for size in group_sizes)
        self.group_embedding = nn.Parameter(torch.randn(len(group_sizes), channels) * 0.02)
        for gate in (self.to_group, *self.to_expert):
            gate.weight.data *= gain
            if bias:
                nn.init.zeros_(gate.bias)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        gates = (self.to_group, *self.to_expert)
        weights = [gate.get_parameter("weight").to(rows.dtype) for gate in gates]
        embedding = self.group_embedding.to(rows.dtype)
        none = embedding.new_zeros(len(self.group_sizes))
        # W_i (x + PE_i) is W_i x plus a constant, so that all gates are one product.
        shifts = [none, *(weight @ embedding[i] for i, weight in enumerate(weights[1:]))]
        if self.to_group.bias is not None:
            biases = [gate.get_parameter("bias").to(rows.dtype) for gate in gates]
            shifts = [shift + bias for shift, bias in zip(shifts, biases, strict=True)]
        joined = score(rows, torch.cat(weights), torch.cat(shifts))
        groups, *members = joined.split((len(self.group_sizes), *self.group_sizes), -1)
        # Not log p_i but the logit of group i: the same softmax, and z-loss can see how large logits grow.
        joint = [groups[:, i : i + 1] + log_softmax(member) for i, member in enumerate(members)]
        return torch.cat([part.T for part in joint]).T


class CosineScore(Score):
    """``cos(P x, e_i) / temperature``: blind to the scale of a row (Chi et al. 2022).

    The temperature is learned, as its logarithm, and stays at ``coldest`` or above: logits are within
    ``1 / coldest``.

    Args:
        channels: width of the rows.
        num_experts: E.
        projection: width in which rows and experts are compared.
        temperature: of the start.
        coldest: the lowest temperature.
        bias: whether the projection has one.
    """

    def __init__(
        self,
        channels: int,
        num_experts: int,
        projection: int = 256,
        temperature: float = 0.5,
        coldest: float = 0.01,
        bias: bool = False,
    ) -> None:
        super().__init__((num_experts,))
        if not 0 < coldest <= temperature:
            raise ValueError(
                f"temperature={temperature}, coldest={coldest}: expected 0 < coldest <= temperature"
            )
        self.coldest = coldest
        self.project = Gate(channels, projection, bias=bias)
        self.embedding = nn.Parameter(torch.randn(num_experts, projection))
        # Not a scalar: fully_shard takes none.
        self.log_temperature = nn.Parameter(torch.full((1,), math.log(temperature)))

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        embedding = F.normalize(self.embedding.to(rows.dtype), dim=-1)
        cosine = score(F.normalize(self.project(rows), dim=-1), embedding)
        log_temperature = self.log_temperature.to(rows.dtype).clamp_min(math.log(self.coldest))
        return cosine * torch.exp(-log_temperature)


class DSelectScore(Score):
    """k selectors written in binary with smooth steps (DSelect-k, Hazimeh et al. 2021, section 3).

    Each selector has a code of log2 E bits (rounded up) in [0, 1]; its weight for expert e is the product,
    over bits, of the code where e's bit is 1 and of one minus the code where it is 0. Once every bit is
    saturated, a selector weighs a single expert. The logits are the logarithm of the mixed weights, so that
    their softmax is the gate. Where E is no power of two, weight that codes give to no expert is lost before
    the softmax; :meth:`regulariser` keeps it small, and saturates selectors.

    Args:
        channels: width of the rows.
        num_experts: E, 2 or more.
        selectors: k.
        gamma: width of the smooth step: a code saturates at ``|z| >= gamma / 2``.

    Raises:
        ValueError: fewer than two experts.
    """

    bits: Tensor

    def __init__(self, channels: int, num_experts: int, selectors: int = 2, gamma: float = 1.0) -> None:
        super().__init__((num_experts,))
        if num_experts < 2:
            raise ValueError(f"num_experts={num_experts}: expected 2 or more, as codes are binary")
        self.selectors, self.gamma = selectors, gamma
        width = self.width = (num_experts - 1).bit_length()
        place = torch.arange(num_experts)[:, None] >> torch.arange(width)  # [E, bits]
        self.register_buffer("bits", (place & 1).bool(), persistent=False)
        self.to_code = Gate(channels, selectors * width)
        self.to_share = Gate(channels, selectors)
        # Inside the smooth step's range: a code that starts saturated has no gradient.
        for layer in (self.to_code, self.to_share):
            nn.init.uniform_(layer.weight, -gamma / (100 * channels**0.5), gamma / (100 * channels**0.5))
            nn.init.uniform_(layer.bias, -gamma / 100, gamma / 100)

    def selected(self, rows: Tensor) -> Tensor:
        """Weight ``[N, k, E]`` that each selector gives each expert; sums to 1 where E is a power of two."""
        code = smooth_step(self.to_code(rows), self.gamma).reshape(-1, self.selectors, 1, self.width)
        return torch.where(self.bits, code, 1 - code).prod(-1)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        share = self.to_share(rows).softmax(-1)  # [N, k]
        gate: Tensor = (share[:, :, None] * self.selected(rows)).sum(1)
        return gate.clamp_min(torch.finfo(gate.dtype).tiny).log()

    def regulariser(self, rows: Tensor) -> Tensor:
        """What makes selectors decide: entropies of their weights, summed over selectors, mean over rows.

        0 once all are saturated. Where E is no power of two, also ``1 / (weight on experts) - 1`` of each, 0
        where none is lost; the paper's has no - 1, which is a constant.
        """
        selected = self.selected(rows)
        tiny = torch.finfo(selected.dtype).tiny
        term: Tensor = torch.special.entr(selected.clamp_min(tiny)).sum(-1)
        if self.num_experts < 2**self.width:
            term = term + 1 / selected.sum(-1).clamp_min(1e-6) - 1
        return term.sum(-1).mean()


def smooth_step(z: Tensor, gamma: float) -> Tensor:
    """0 below ``-gamma / 2``, 1 above ``gamma / 2``, a cubic between them (Hazimeh et al. 2021)."""
    t = (z / gamma).clamp(-0.5, 0.5)
    return -2 * t**3 + 1.5 * t + 0.5


class ConditionedScore(Score):
    """Another score plus ``U phi``: logits that know the row's sensor, time, place or modality.

    U starts at 0, and a missing context (None, or an all-zero row of it) adds nothing: without metadata the
    router is the unconditioned one.

    Args:
        content: the score of the rows themselves.
        context_channels: width of phi; see :class:`geomoe.moe.signals.MetadataEncoder`.
    """

    takes_context = True

    def __init__(self, content: Score, context_channels: int) -> None:
        super().__init__(content.group_sizes)
        self.content = content
        self.condition = Gate(context_channels, self.num_experts, bias=False)
        nn.init.zeros_(self.condition.weight)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        logits: Tensor = self.content(rows, context) if self.content.takes_context else self.content(rows)
        if context is None:  # zeros, and not nothing: data parallelism waits for U's gradient
            context = logits.new_zeros(rows.shape[0], self.condition.in_features)
        return torch.add(logits, self.condition(context.to(logits.dtype)))


class FrozenScore(Score):
    """A random gate that is never trained (SMoE-Dropout, Chen et al. 2023)."""

    weight: Tensor

    def __init__(self, channels: int, num_experts: int) -> None:
        super().__init__((num_experts,))
        weight = torch.randn(num_experts, channels, dtype=torch.float32)
        self.register_buffer("weight", weight / math.sqrt(channels))

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        return score(rows, self.weight)


class HashScore(Score):
    """``hash(id) mod E``, a fixed expert for every id (Roller et al. 2021); rows are whole ids ``[N]``.

    The hash is arithmetic alone, so it is the same on every run and machine.

    Args:
        num_experts: E.
        seed: another table.
    """

    takes_ids = True

    def __init__(self, num_experts: int, seed: int = 0) -> None:
        super().__init__((num_experts,))
        self.seed = seed

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        if rows.is_floating_point() or rows.dim() != 1:
            raise ValueError(f"hash routing takes whole ids [N], not {rows.dtype} {list(rows.shape)}")
        mixed = (rows.long() ^ (rows.long() >> 32)) + self.seed * 0x9E3779B9  # high bits count too
        for factor in (0x45D9F3B, 0x45D9F3B):
            mixed = ((mixed >> 16) ^ mixed) * factor & 0xFFFFFFFF
        return only((mixed >> 16 ^ mixed) % self.num_experts, self.num_experts)


class HyperplaneScore(Score):
    """Locality-sensitive hashing: on which sides of random hyperplanes a row lies. Equal rows share a bucket.

    Args:
        channels: width of the rows.
        num_experts: E, a power of two: a bit a hyperplane.
    """

    planes: Tensor

    def __init__(self, channels: int, num_experts: int) -> None:
        super().__init__((num_experts,))
        if num_experts & (num_experts - 1):
            raise ValueError(f"num_experts={num_experts}: expected a power of two, a bit a hyperplane")
        planes = torch.randn(num_experts.bit_length() - 1, channels, dtype=torch.float32)
        self.register_buffer("planes", planes)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        sides = score(rows, self.planes) > 0  # [N, bits]
        place = 2 ** torch.arange(sides.shape[1], device=rows.device)
        return only((sides * place).sum(-1), self.num_experts)


def only(expert: Tensor, num_experts: int) -> Tensor:
    """Logits ``[N, E]`` of certainty: 0 for ``expert`` ``[N]``, minus infinity for the others."""
    certain = F.one_hot(expert, num_experts).bool()
    logits = torch.zeros(certain.shape, dtype=torch.float32, device=expert.device)
    return logits.masked_fill(~certain, float("-inf"))
