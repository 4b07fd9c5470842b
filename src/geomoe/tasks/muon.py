"""Muon: steps of orthogonal matrices for the blocks of a trunk, Adam for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.models.precision import has_bfloat16
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.routing.router import AnyRouter
from geomoe.tasks.compiled import TRUNKS

__all__ = ["Muon", "matrices", "orthogonal"]

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients that bring all singular values near 1 in five steps (Jordan et al. 2024)."""


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights that are matrices in the blocks of a trunk: of linear layers, and of dense convolutions.

    Not those at the ends of a network, of routers, of experts, and of small networks that make a bias.

    Raises:
        GeomoeError: a model without blocks.
    """
    routing = [name for name, m in model.named_modules() if isinstance(m, AnyRouter | ExpertBank)]
    found = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in routing):
            continue
        path = name.split(".")
        inside = not {*path}.isdisjoint(TRUNKS) and "bias" not in path
        dense = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if inside and dense and min(_flat(module.weight).shape) > 1:
            found.append(module.weight)
    if not found:
        raise GeomoeError(f"{type(model).__name__} has no blocks for muon; choose --model.optimizer adam")
    return found


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal before each step (Jordan et al. 2024).

    A step of a matrix ``[m, n]`` is 0.2 sqrt(max(m, n)) times an orthogonal one, which moves its entries as
    Adam would (Liu et al. 2025), so that one learning rate suits both. A convolution is the matrix of its
    output channels by all it sees. torch's own takes matrices alone.

    Args:
        parameters: all that are trained.
        chosen: those that are matrices, from :func:`matrices`; the others are Adam's.
        lr: learning rate of both.
        betas: of Adam.
        momentum: of the matrices.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        chosen: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
    ) -> None:
        mine = {id(p) for p in chosen}
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for p in parameters:
            groups[id(p) in mine].append(p)
        options = {"lr": lr, "betas": betas, "momentum": momentum, "eps": 1e-8}
        super().__init__(
            [{"params": members, "orthogonal": kind} for kind, members in groups.items() if members], options
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; gives what ``closure`` gives, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            having = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                self._matrices(having, group)
            elif having:
                self._adam(having, group)
        return loss

    def _matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        shapes: dict[torch.Size, list[Tensor]] = {}
        for p in parameters:
            shapes.setdefault(_flat(p).shape, []).append(p)
        for shape, alike in shapes.items():
            steps = []
            for p in alike:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                assert p.grad is not None
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                steps.append(_flat(p.grad.lerp(state["momentum"], group["momentum"])))  # Nesterov's
            scale = 0.2 * max(shape) ** 0.5
            for p, step in zip(alike, orthogonal(torch.stack(steps)), strict=True):
                p.add_(_back(step, p), alpha=-group["lr"] * scale)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p] |= {"first": torch.zeros_like(p), "second": torch.zeros_like(p), "steps": 0}
            self.state[p]["steps"] += 1
        first, second = ([self.state[p][kind] for p in parameters] for kind in ("first", "second"))
        gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
        b1, b2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - b2)
        for p, m, v in zip(parameters, first, second, strict=True):
            t = self.state[p]["steps"]
            spread = (v / (1 - b2**t)).sqrt_().add_(group["eps"])
            p.addcdiv_(m, spread, value=-group["lr"] / (1 - b1**t))


def _flat(weight: Tensor) -> Tensor:
    # Input channels last: for weights in that memory format a view. The order of columns changes nothing.
    return weight.movedim(1, -1).flatten(1)


def _back(matrix: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = matrix.unflatten(1, (*weight.shape[2:], weight.shape[1])).movedim(-1, 1)
    return out


def orthogonal(stack: Tensor) -> Tensor:
    """``[B, m, n]`` to the nearest matrices whose singular values are about 1, by five Newton-Schulz steps.

    In bfloat16, where the device computes with it: what is left of the singular values' spread is larger than
    its rounding. Most end between 0.7 and 1.2; the smallest of square matrices stay below.
    """
    a, b, c = _QUINTIC
    x = stack.bfloat16() if has_bfloat16(stack.device) else stack.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        # a x + (b square + c square square) x
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    out: Tensor = (x.mT if tall else x).to(stack.dtype)
    return out
