"""What a router decided: a plan for one call, and the trace of a whole forward pass."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.weights import RoutingMode, affinity, weigh

__all__ = ["LastSignals", "NoisyLogits", "PlacedTrace", "Replay", "RoutingPlan", "RoutingTrace"]


@dataclass(frozen=True, eq=False)
class NoisyLogits:
    """Logits as noise left them, before any other adjustment.

    Attributes:
        clean: ``[N, E]`` the score's.
        std: ``[N, E]`` standard deviation of the noise.
        noisy: ``[N, E]`` their sum with the noise that was drawn.
    """

    clean: Tensor
    std: Tensor
    noisy: Tensor

    def longer(self) -> NoisyLogits:
        """One row more, of zeros."""
        return NoisyLogits(*(F.pad(x, (0, 0, 0, 1)) for x in (self.clean, self.std, self.noisy)))


@dataclass(frozen=True, eq=False, repr=False)
class RoutingPlan:
    """Which experts every row was given, and how much each counts.

    N rows are routed to at most k of E experts. What a row is, the units say: a pixel, a token, a window, a
    region, a whole sample.

    Attributes:
        experts: ``[N, k]`` int64, index of each chosen expert in ``0..E-1``, best first.
        weights: ``[N, k]`` the factor that multiplies each chosen expert's result.
        probabilities: ``[N, E]`` float32, the router's belief; every row sums to 1.
        logits: ``[N, E]`` float32, what the belief was made from; ``softmax(logits) == probabilities`` unless
            the router's gate is another one.
        group_sizes: experts in each group; ``(E,)`` where there are no groups.
        grid: the shape that the rows came from, ``(B, H, W)`` for pixels, ``(B, T)`` for tokens, in
            row-major order.
        kept: ``[N, k]`` bool, choices that are carried out. A choice that is not (an expert was full, or the
            row needs fewer than k) costs nothing and adds nothing. None: all are.
        dropped: ``[N, k]`` bool, choices that were asked for and found their expert full. None: none was.
        noise: what was added to the logits while training; None where nothing was.
        valid: ``[N]`` bool, rows that there are. One that is not (nodata, a hidden token, a missing date) has
            no expert, and counts in no term, place, bias or figure. None: all are.
    """

    experts: Tensor
    weights: Tensor
    probabilities: Tensor
    logits: Tensor
    group_sizes: tuple[int, ...]
    grid: tuple[int, ...]
    kept: Tensor | None = None
    dropped: Tensor | None = None
    noise: NoisyLogits | None = None
    valid: Tensor | None = None

    def __repr__(self) -> str:
        kept = "" if self.kept is None else f", {int(self.kept.sum())} choices kept"
        rows = f"{self.num_rows} rows to {self.top_k} of {self.num_experts} experts"
        return f"RoutingPlan({rows}, grid {self.grid}{kept})"

    @property
    def num_rows(self) -> int:
        return self.experts.shape[0]

    @property
    def num_experts(self) -> int:
        return sum(self.group_sizes)

    @property
    def top_k(self) -> int:
        return self.experts.shape[1]

    @property
    def groups(self) -> Tensor:
        """``[N, k]`` int64, the group (0-based) of each chosen expert."""
        ends = torch.tensor(self.group_sizes, device=self.experts.device).cumsum(0)
        return torch.bucketize(self.experts.contiguous(), ends, right=True)

    @property
    def members(self) -> Tensor:
        """``[N, k]`` int64, the place (0-based) of each chosen expert inside its group."""
        sizes = torch.tensor(self.group_sizes, device=self.experts.device)
        return self.experts - (sizes.cumsum(0) - sizes)[self.groups]

    @property
    def confidence(self) -> Tensor:
        """``[N]`` probability of the first choice, in [0, 1]."""
        return self.probabilities.gather(1, self.experts[:, :1]).squeeze(1)

    @property
    def entropy(self) -> Tensor:
        """``[N]`` entropy of each row's belief over ln E: 0 where it is sure, 1 where all are alike."""
        p = self.probabilities.detach()
        return -torch.xlogy(p, p).sum(1) / math.log(max(2, p.shape[1]))

    @property
    def main(self) -> Tensor:
        """``[N]`` int64, the expert that counts most in each row's result; -1 where none does."""
        most, expert = self.gates.detach().max(1)
        return expert.masked_fill(most <= 0, -1)

    @property
    def gates(self) -> Tensor:
        """``[N, E]`` weight of every expert in the row's result, 0 where it was not chosen."""
        weights = self.weights if self.kept is None else self.weights * self.kept
        zeros = weights.new_zeros(self.num_rows, self.num_experts)
        return zeros.scatter_add(1, self.experts, weights)

    def spread(self, index: Tensor, grid: tuple[int, ...]) -> RoutingPlan:
        """The plan for rows that share the plans of coarser units: row i takes the plan of ``index[i]``.

        Regions are planned once each and carried out on their pixels; samples on their tokens. With a
        permutation it shuffles rows, to ask whether their routing mattered.

        Args:
            index: ``[n]`` int64.
            grid: the shape that the n rows come from.
        """
        return self._each(lambda value: value[index], grid)

    def of_valid(self) -> RoutingPlan:
        """The plan of the valid rows alone, as if there were no others."""
        if self.valid is None:
            return self
        index = self.valid.nonzero().squeeze(1)
        return replace(self.spread(index, (len(index),)), valid=None)

    def among(self, valid: Tensor, grid: tuple[int, ...]) -> RoutingPlan:
        """The inverse of :meth:`of_valid`: this plan's rows where ``valid`` is, and none anywhere else.

        Args:
            valid: ``[N]`` bool, as many as this plan has rows.
            grid: the shape that the N rows come from.
        """
        # One more row, which is given nothing, stands for all that are not valid.
        place = (valid.cumsum(0) - 1).masked_fill(~valid, self.num_rows)
        first = torch.arange(self.top_k, device=self.experts.device)[None]
        kept = torch.ones_like(self.experts, dtype=torch.bool) if self.kept is None else self.kept
        even = self.probabilities.new_full((1, self.num_experts), 1 / self.num_experts)
        longer = replace(
            self,
            experts=torch.cat([self.experts, first]),
            weights=F.pad(self.weights, (0, 0, 0, 1)),
            probabilities=torch.cat([self.probabilities, even]),
            logits=F.pad(self.logits, (0, 0, 0, 1)),
            kept=F.pad(kept, (0, 0, 0, 1)),
            dropped=None if self.dropped is None else F.pad(self.dropped, (0, 0, 0, 1)),
            noise=None if self.noise is None else self.noise.longer(),
        )
        return replace(longer.spread(place, grid), valid=valid)

    def samples(self) -> list[RoutingPlan]:
        """A plan for each sample of the grid: a balance term of each, averaged, is balance inside the images.

        Raises:
            ValueError: no rows, or a grid whose first entry does not count samples.
        """
        number, *inside = self.grid
        if not self.num_rows or self.num_rows % number:
            raise ValueError(f"samples: {self.num_rows} rows of a grid {self.grid} are of no whole samples")
        rows = torch.arange(self.num_rows, device=self.experts.device).view(number, -1)
        return [self.spread(mine, (1, *inside)) for mine in rows]

    def choice(self, number: int) -> RoutingPlan:
        """The plan with one choice of each row alone, for layers that want the results of each apart."""
        only = slice(number, number + 1)
        return replace(
            self,
            experts=self.experts[:, only],
            weights=self.weights[:, only],
            kept=None if self.kept is None else self.kept[:, only],
            dropped=None if self.dropped is None else self.dropped[:, only],
        )

    def detach(self) -> RoutingPlan:
        """The same plan without its gradients."""
        return self._each(torch.Tensor.detach, self.grid)

    def _each(self, change: Callable[[Tensor], Tensor], grid: tuple[int, ...]) -> RoutingPlan:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {n: change(v) for n, v in values.items() if isinstance(v, Tensor)}
        if self.noise is not None:
            n = self.noise
            changed["noise"] = NoisyLogits(change(n.clean), change(n.std), change(n.noisy))
        return replace(self, **changed, grid=grid)

    def digest(self) -> str:
        """Hash of what is carried out: choices, what was kept, weights. Equal plans have equal digests."""
        parts = [self.experts, self.weights.float()] + ([] if self.kept is None else [self.kept])
        sha = hashlib.sha256(repr((self.group_sizes, self.grid)).encode())
        for part in parts:
            data = part.detach().cpu().contiguous()
            sha.update(repr((tuple(data.shape), str(data.dtype))).encode())
            sha.update(data.numpy().tobytes())
        return sha.hexdigest()


class RoutingTrace:
    """The plans of one forward pass, in the order in which the layers ran.

    A layer calls :meth:`record` with its plan and carries out the one that it gets back. This class gives
    back the same; one that gives another is an intervention (:class:`Replay`). A layer that runs again in the
    backward pass, where ``torch.utils.checkpoint`` recomputes it, is recorded once.

    Example:
        >>> trace = RoutingTrace()
        >>> sr = model(x, trace=trace)          # doctest: +SKIP
        >>> trace[-1].experts.shape             # doctest: +SKIP
    """

    def __init__(self, plans: Iterable[RoutingPlan] = ()) -> None:
        self.plans = list(plans)
        self.routers: list[nn.Module | None] = [None] * len(self.plans)
        """The router that made each plan, where the layer said so."""

    def record(
        self, plan: RoutingPlan, router: nn.Module | None = None, signals: Tensor | None = None
    ) -> RoutingPlan:
        """Keep ``plan``, which ``router`` made of ``signals`` (``[N, C]``), and return the one to carry out.

        Signals are not kept here; see :class:`LastSignals`.

        Raises:
            ValueError: recomputed by a reentrant checkpoint, whose first pass recorded a plan without a
                gradient.
        """
        if not _recomputed(plan):
            self.plans.append(plan)
            self.routers.append(router)
        return plan

    def detach(self) -> RoutingTrace:
        """The same trace without gradients."""
        trace = RoutingTrace(plan.detach() for plan in self.plans)
        trace.routers = list(self.routers)
        return trace

    def __getitem__(self, index: int) -> RoutingPlan:
        return self.plans[index]

    def __iter__(self) -> Iterator[RoutingPlan]:
        return iter(self.plans)

    def __len__(self) -> int:
        return len(self.plans)


class LastSignals(RoutingTrace):
    """A trace that keeps what the last router was shown.

    Attributes:
        signals: ``[N, C]``; None where nothing was routed, or the layer did not say.
    """

    def __init__(self, plans: Iterable[RoutingPlan] = ()) -> None:
        super().__init__(plans)
        self.signals: Tensor | None = None

    def record(
        self, plan: RoutingPlan, router: nn.Module | None = None, signals: Tensor | None = None
    ) -> RoutingPlan:
        self.signals = signals
        return super().record(plan, router, signals)


class PlacedTrace(RoutingTrace):
    """A trace for a network that is run on some of the places of a grid, each a sample of its own.

    Where a place has several rows, say tokens, the grid of a plan goes on with their number.

    Args:
        outer: is given plans of the whole grid, in which the other places are not valid.
        valid: ``[N]`` bool, the places that are run.
        grid: the shape that the N places come from.
    """

    def __init__(self, outer: RoutingTrace, valid: Tensor, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.outer, self.valid, self.grid = outer, valid, grid

    def record(
        self, plan: RoutingPlan, router: nn.Module | None = None, signals: Tensor | None = None
    ) -> RoutingPlan:
        inside = plan.grid[1:]
        valid = self.valid.repeat_interleave(math.prod(inside)) if inside else self.valid
        placed = self.outer.record(plan.among(valid, (*self.grid, *inside)), router, signals)
        return super().record(placed.of_valid(), router)


def _recomputed(plan: RoutingPlan) -> bool:
    """Whether the layer that made ``plan`` runs in the backward pass, for what a checkpoint did not keep."""
    if torch.compiler.is_compiling():
        return False
    node: Any = torch._C._current_autograd_node()
    if node is not None and "CheckpointFunction" in node.name() and plan.probabilities.requires_grad:
        raise ValueError(
            "trace: under a reentrant checkpoint recorded plans have no gradient, and terms of them would do "
            "nothing; call torch.utils.checkpoint.checkpoint with use_reentrant=False"
        )
    return node is not None


class Replay(RoutingTrace):
    """A trace that makes every layer carry out a recorded plan again.

    Args:
        recorded: a trace of an earlier pass over the same rows through the same layers.
        mode: None carries out recorded choices with recorded weights: the same plans, bit for bit. With a
            :data:`geomoe.moe.weights.RoutingMode` the choices are the recorded ones and the weights are
            made anew from this pass's belief, by the gate and scale of the router's choice, so that it learns
            (routing replay, Ma et al. 2025).

    Raises:
        ValueError: more layers or other rows than were recorded; a layer that runs several times in a pass,
            recomputed by a checkpoint: which of its plans it asks for is not known.
    """

    def __init__(self, recorded: Iterable[RoutingPlan], mode: RoutingMode | None = None) -> None:
        super().__init__()
        self.recorded = list(recorded)
        self.mode = mode

    def record(
        self, plan: RoutingPlan, router: nn.Module | None = None, signals: Tensor | None = None
    ) -> RoutingPlan:
        number = self._again(router) if _recomputed(plan) else len(self.plans)
        if number == len(self.recorded):
            raise ValueError(f"replay: {len(self.recorded)} plans were recorded, and one more layer asks")
        old = self.recorded[number].detach()
        if old.probabilities.shape != plan.probabilities.shape:
            raise ValueError(
                f"replay: a plan for {tuple(old.probabilities.shape)} rows and experts was recorded, "
                f"this layer routes {tuple(plan.probabilities.shape)}"
            )
        if not _alike(old.valid, plan.valid):
            raise ValueError("replay: other rows are valid than where the plan was recorded")
        if self.mode is not None:
            weights = _weights(plan, old.experts, self.mode, router)
            old = replace(plan, experts=old.experts, weights=weights, kept=old.kept, dropped=old.dropped)
        return super().record(old, router, signals)

    def _again(self, router: nn.Module | None) -> int:
        """The number of the plan of a layer that is recomputed, not in the order of the first pass."""
        mine = [i for i, other in enumerate(self.routers) if other is router and router is not None]
        if len(mine) != 1:
            raise ValueError(
                f"replay: a checkpoint recomputes a layer that has {len(mine)} plans of its own, expected 1; "
                "leave the layer out of the checkpoint"
            )
        return mine[0]


def _alike(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def _weights(plan: RoutingPlan, experts: Tensor, mode: RoutingMode, router: nn.Module | None) -> Tensor:
    """Weights ``[N, k]`` of ``experts`` by the belief of ``plan``, as the choice of its router makes them."""
    maker: Any = router
    while maker is not None and not hasattr(maker, "choice"):  # what stands around a router
        maker = getattr(maker, "router", None)
    choice = getattr(maker, "choice", None)
    gate, scale = getattr(choice, "gate", "softmax"), getattr(choice, "scale", 1.0)
    # Of other gates than the sigmoid, such as sparsemax, the plan's probabilities are the affinities.
    s = affinity(plan.logits, "sigmoid") if gate == "sigmoid" else plan.probabilities
    weights = weigh(s.gather(1, experts), mode)
    return weights if scale == 1 else weights * scale


# Plans may be stored by torch.save and read with weights_only.
torch.serialization.add_safe_globals([RoutingPlan, NoisyLogits])
