"""Layers: a router and a bank put together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geomoe.moe.dispatch.run import Backend, check_backend, dispatch
from geomoe.moe.experts.bank import ExpertBank, Rows
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.routing.router import AnyRouter
from geomoe.moe.routing.score import Gate
from geomoe.moe.units import Neighbourhoods
from geomoe.moe.valid import present

__all__ = ["CustomisedGates", "GatedShared", "MoE", "MultiGate", "PreGated"]


class MoE(nn.Module):
    """Rows through the experts that a router chose for them.

    Args:
        router: decides.
        bank: E experts, as many as the router knows.
        shared: a module that every row goes through besides, added to what its experts say (DeepSeekMoE,
            Dai et al. 2024).
        backend: see :data:`geomoe.moe.dispatch.run.Backend`.

    Raises:
        ValueError: a router and a bank of different numbers of experts.

    Example:
        >>> layer = MoE(switch_router(16, 4), FeedForwardExperts(16, 32, 4))    # doctest: +SKIP
        >>> y = layer(torch.randn(100, 16))                                    # doctest: +SKIP
    """

    def __init__(
        self, router: AnyRouter, bank: ExpertBank, shared: nn.Module | None = None, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        if router.num_experts != bank.num_experts:
            raise ValueError(
                f"the router knows {router.num_experts} experts, the bank has {bank.num_experts}"
            )
        check_backend(backend)
        self.router, self.bank, self.shared, self.backend = router, bank, shared, backend

    def forward(
        self,
        rows: Rows,
        signals: Tensor | None = None,
        *,
        grid: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        trace: RoutingTrace | None = None,
    ) -> Tensor:
        """Results ``[N, ...]``.

        Args:
            rows: what the experts work on, ``[N, ...]``.
            signals: ``[N, C]`` what the router looks at; the rows themselves if not given.
            grid: the shape that the rows came from; known of pixels with their surroundings, else ``(N,)``.
            context: ``[N, D]`` for a router that is conditioned.
            valid: ``[N]`` bool, rows that there are; the others have no expert, count nowhere and give 0,
                whatever they hold (NaN too). Surroundings of pixels are seen as they are.
            trace: the plan is recorded there.
        """
        if grid is None and isinstance(rows, Neighbourhoods):
            grid = rows.grid
        shown = _signals(rows, signals)
        plan = self.router(shown, grid, context, valid)
        plan = plan if trace is None else trace.record(plan, self.router, shown)
        return self._carry_out(rows, plan)

    def carry_out(self, rows: Rows, plan: RoutingPlan, trace: RoutingTrace | None = None) -> Tensor:
        """The layer with a plan from elsewhere."""
        return self._carry_out(rows, plan if trace is None else trace.record(plan))

    def _carry_out(self, rows: Rows, plan: RoutingPlan) -> Tensor:
        out = dispatch(self.bank, rows, plan, self.backend)
        if self.shared is None:
            return out
        if isinstance(rows, Neighbourhoods):
            raise ValueError("shared: pixels with their surroundings are no rows; add such a module outside")
        if plan.valid is None:
            return torch.add(out, self.shared(rows))
        there = plan.valid.nonzero().squeeze(1)
        return out.index_add(0, there, self.shared(rows[there]).to(out.dtype))


def _signals(rows: Rows, signals: Tensor | None) -> Tensor:
    if signals is not None:
        return signals
    if isinstance(rows, Neighbourhoods):
        raise ValueError(
            "signals: pixels with their surroundings are no signal; give [N, C], say Pixels.of(x).to_rows(x)"
        )
    return rows


class GatedShared(nn.Module):
    """A shared expert that each row takes by a share of its own: ``sigmoid(w x) f(x)`` (Qwen2-MoE, Time-MoE).

    For :class:`MoE`'s ``shared``.

    Args:
        module: f, on rows ``[N, C]``.
        channels: C.
    """

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__()
        self.module, self.gate = module, Gate(channels, 1, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.module(rows)
        share: Tensor = self.gate(rows).sigmoid()
        return share.to(out.dtype) * out


class MultiGate(nn.Module):
    """One bank, a gate for every task (MMoE, Ma et al. 2018).

    Args:
        routers: a router for each task.
        bank: the experts that tasks share.
        backend: see :data:`geomoe.moe.dispatch.run.Backend`; where every row wants every expert, each is run
            once for all tasks.

    Raises:
        ValueError: routers that know another number of experts.
    """

    def __init__(self, routers: Sequence[AnyRouter], bank: ExpertBank, backend: Backend = "auto") -> None:
        super().__init__()
        check_backend(backend)
        for task, router in enumerate(routers):
            _check_experts(f"task {task}", router, bank.num_experts)
        self.routers = nn.ModuleList(routers)
        self.bank, self.backend = bank, backend

    def forward(
        self,
        rows: Rows,
        signals: Tensor | None = None,
        *,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        trace: RoutingTrace | None = None,
    ) -> list[Tensor]:
        """A result ``[N, ...]`` for every task; plans are recorded in the order of the tasks."""
        shown = _signals(rows, signals)
        plans = [router(shown, None, context, valid) for router in self.routers]
        if trace is not None:
            plans = [trace.record(*made, shown) for made in zip(plans, self.routers, strict=True)]
        if all(plan.top_k == plan.num_experts and plan.kept is None for plan in plans):
            every = torch.stack([self.bank.everywhere(e, rows) for e in range(self.bank.num_experts)])
            return [_mixed(plan, every) for plan in plans]
        return [dispatch(self.bank, rows, plan, self.backend) for plan in plans]


class CustomisedGates(nn.Module):
    """Experts of each task beside experts that all share (CGC, one level of PLE, Tang et al. 2020).

    A task's gate weighs its own experts and the shared ones. Levels follow each other by giving the
    results, a list with one entry a task and the shared one last, to the next.

    Args:
        own: a bank for each task.
        shared: a bank for all.
        routers: a router for each task, over its own experts and then the shared ones.
        shared_router: for the shared path of a level that another follows: over all tasks' experts and then
            the shared ones. None in the last level.
    """

    def __init__(
        self,
        own: Sequence[ExpertBank],
        shared: ExpertBank,
        routers: Sequence[AnyRouter],
        shared_router: AnyRouter | None = None,
    ) -> None:
        super().__init__()
        if len(own) != len(routers):
            raise ValueError(f"{len(own)} tasks have experts and {len(routers)} have routers")
        for task, (bank, router) in enumerate(zip(own, routers, strict=True)):
            _check_experts(f"task {task}", router, bank.num_experts + shared.num_experts)
        if shared_router is not None:
            every = sum(bank.num_experts for bank in own) + shared.num_experts
            _check_experts("shared_router", shared_router, every)
        self.own, self.shared = nn.ModuleList(own), shared
        self.routers, self.shared_router = nn.ModuleList(routers), shared_router

    def forward(
        self, rows: Sequence[Tensor], *, valid: Tensor | None = None, trace: RoutingTrace | None = None
    ) -> list[Tensor]:
        """Results for the tasks (and the shared path, last) from rows ``[N, C]`` for each.

        Args:
            rows: one entry a task and the shared path last; the same tensor in each at the first level.
            valid: ``[N]`` bool, rows that there are.
            trace: plans are recorded there, in that order.
        """
        if len(rows) != len(self.own) + 1:
            raise ValueError(
                f"{len(rows)} entries, expected one for each of {len(self.own)} tasks and the shared"
            )
        rows = [present(x, valid) for x in rows]
        mine = [_every(bank, x) for bank, x in zip(self.own, rows[:-1], strict=True)]  # [E_t, N, ...] each
        ours = _every(self.shared, rows[-1])
        done = []
        for router, experts, x in zip(self.routers, mine, rows[:-1], strict=True):
            done.append(_mix(router, x, valid, torch.cat([experts, ours]), trace))
        if self.shared_router is not None:
            done.append(_mix(self.shared_router, rows[-1], valid, torch.cat([*mine, ours]), trace))
        return done


def _every(bank: nn.Module, rows: Tensor) -> Tensor:
    assert isinstance(bank, ExpertBank)
    return torch.stack([bank.expert(e, rows) for e in range(bank.num_experts)])


def _mix(
    router: nn.Module, rows: Tensor, valid: Tensor | None, results: Tensor, trace: RoutingTrace | None
) -> Tensor:
    plan = router(rows, valid=valid)
    return _mixed(plan if trace is None else trace.record(plan, router, rows), results)


def _mixed(plan: RoutingPlan, results: Tensor) -> Tensor:
    return torch.einsum("ne,en...->n...", plan.gates.to(results.dtype), results)


def _check_experts(name: str, router: AnyRouter, experts: int) -> None:
    if router.num_experts != experts:
        raise ValueError(f"{name}: the router knows {router.num_experts} experts, there are {experts}")


class PreGated(nn.Module):
    """Layers whose experts are chosen one layer ahead, so that they can be fetched in time (Hwang et al.
    2024).

    Layer l's router sees what goes into layer l and plans layer l + 1; the first layer is planned by a
    router of its own, on the same rows.

    Args:
        first: plans the first layer.
        ahead: layer l's router, which plans layer l + 1; one fewer than layers.
        banks: the experts of each layer.
    """

    def __init__(self, first: AnyRouter, ahead: Sequence[AnyRouter], banks: Sequence[ExpertBank]) -> None:
        super().__init__()
        if len(ahead) != len(banks) - 1:
            raise ValueError(f"{len(banks)} layers want {len(banks) - 1} routers ahead, not {len(ahead)}")
        self.first, self.ahead, self.banks = first, nn.ModuleList(ahead), nn.ModuleList(banks)

    def forward(
        self, rows: Tensor, *, valid: Tensor | None = None, trace: RoutingTrace | None = None
    ) -> Tensor:
        """Rows ``[N, C]`` through all layers, each added to what went in; ``valid`` as of :class:`MoE`."""
        router: nn.Module = self.first
        shown = rows
        plan = router(rows, valid=valid)
        for i, bank in enumerate(self.banks):
            assert isinstance(bank, ExpertBank)
            following = self.ahead[i](rows, valid=valid) if i < len(self.ahead) else None
            plan = plan if trace is None else trace.record(plan, router, shown)
            before, rows = rows, rows + dispatch(bank, rows, plan)
            if following is not None:
                plan, router, shown = following, self.ahead[i], before
        return rows
