"""Dispatch and combine: a plan carried out on a bank."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from geomoe.moe.dispatch.combine import combine
from geomoe.moe.experts.bank import ExpertBank, Rows, exporting
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.sort import sort_choices
from geomoe.moe.units import Neighbourhoods
from geomoe.moe.valid import present

__all__ = ["Backend", "check_backend", "choose_backend", "dispatch"]

Backend = Literal["auto", "dense", "loop", "grouped", "window"]
"""How a plan is carried out; the numbers are the same.

``dense``: every expert on every row. The reference for tests, and what is exported to ONNX.
``loop``: rows sorted by expert, one expert after the other, by plain operations.
``grouped``: sorted rows through the bank's own kernels.
``window``: convolutions of the windows in which an expert has pixels, for pixels whose routing is of one
piece. ``auto``: see :func:`choose_backend`.
"""

_DENSE_PIXELS = {"cpu": 4096}
"""Pixels from which convolutions are fastest run densely where every pixel wants every expert, by device;
never on one that is not listed. Measured by ``benchmarks/backends.py``; see docs/core/dispatch.md."""


def dispatch(bank: ExpertBank, rows: Rows, plan: RoutingPlan, backend: Backend = "auto") -> Tensor:
    """The weighted sum of each row's chosen experts.

    A row whose choices were all dropped gets 0. The sum is taken in the order of the choices, so that the
    same plan gives the same bits.

    Args:
        bank: the experts.
        rows: ``[N, ...]``, or the :class:`~geomoe.moe.units.Neighbourhoods` of N pixels.
        plan: made for these N rows.
        backend: see :data:`Backend`.

    Returns:
        ``[N, ...]`` results. A row's does not depend, but for rounding, on how other rows were routed.

    Raises:
        ValueError: an unknown back end, or a plan for other rows or another number of experts.
    """
    check_backend(backend)
    if plan.num_experts != bank.num_experts or plan.num_rows != rows.shape[0]:
        raise ValueError(
            f"the plan is for {plan.num_rows} rows and {plan.num_experts} experts, "
            f"there are {rows.shape[0]} and {bank.num_experts}"
        )
    if backend == "auto":
        backend = choose_backend(bank, rows, plan)
    if backend == "dense":
        return _dense(bank, rows if isinstance(rows, Neighbourhoods) else present(rows, plan.valid), plan)
    run = _outside_graphs() if "torch._dynamo" in sys.modules else _sparse
    done: Tensor = run(bank, rows, plan, backend)
    return done


def choose_backend(bank: ExpertBank, rows: Rows, plan: RoutingPlan) -> Backend:
    """What ``auto`` is for this work: ``dense`` under export, and for convolutions of a large image where
    every pixel wants every expert; else ``grouped``.
    """
    if exporting():
        return "dense"
    every = plan.kept is None and plan.top_k == plan.num_experts
    if every and bank.convolves and isinstance(rows, Neighbourhoods):
        least = _DENSE_PIXELS.get(rows.flat.device.type)
        if least is not None and plan.num_rows >= least:
            return "dense"
    return "grouped"


def check_backend(backend: str) -> None:
    """Raise ValueError for the name of no back end."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}: expected one of {', '.join(get_args(Backend))}")


@cache
def _outside_graphs() -> Callable[..., Tensor]:
    # How many rows each expert gets is known only once a plan is there: a compiled graph ends here. To say so
    # imports the compiler, 0.15 GB of it, and so is said only where the compiler is in use.
    outside: Callable[..., Tensor] = torch.compiler.disable(_sparse)
    return outside


def _sparse(bank: ExpertBank, rows: Rows, plan: RoutingPlan, backend: Backend) -> Tensor:
    choices = sort_choices(plan)
    run = {"window": bank.windowed, "loop": bank.loop}.get(backend, bank.run)
    results = run(rows, choices.rows, choices.counts)
    return combine(results, choices, plan)


def _beside(weights: Tensor, results: Tensor) -> Tensor:
    return weights.view(-1, *(1,) * (results.dim() - 1))


def _dense(bank: ExpertBank, rows: Rows, plan: RoutingPlan) -> Tensor:
    gates = plan.gates
    total = None
    for e in range(bank.num_experts):
        result = bank.everywhere(e, rows)
        weighted = result * _beside(gates[:, e].to(result.dtype), result)
        total = weighted if total is None else total + weighted
    assert total is not None
    return total
