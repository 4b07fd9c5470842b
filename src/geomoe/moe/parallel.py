"""Expert parallelism: experts on several processes, rows sent to where their experts live.

On PyTorch's own distributed stack: a device mesh or process group, and all-to-all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import ProcessGroup

from geomoe.moe.bank import ExpertBank, Rows

__all__ = ["ParallelExperts"]


class _Exchange(torch.autograd.Function):
    """All-to-all of rows; its gradient is the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, send: list[int], receive: list[int], group: ProcessGroup) -> Tensor:
        ctx.splits, ctx.group = (send, receive), group
        out = rows.new_empty(sum(receive), *rows.shape[1:])
        dist.all_to_all_single(out, rows.contiguous(), receive, send, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        send, receive = ctx.splits
        out = grad.new_empty(sum(send), *grad.shape[1:])
        dist.all_to_all_single(out, grad.contiguous(), send, receive, group=ctx.group)
        return out, None, None, None


def _exchange(rows: Tensor, send: list[int], receive: list[int], group: ProcessGroup) -> Tensor:
    out: Tensor = _Exchange.apply(rows, send, receive, group)  # type: ignore[no-untyped-call]
    return out


class ParallelExperts(ExpertBank):
    """A bank of which every process holds a part: E experts a process, ``E * processes`` in all.

    It takes the place of a bank: routers, plans and dispatch know nothing of it. The experts of the first
    process come first. Every process of the group has to call it, each with rows of its own. Experts learn
    from the rows of all processes; what is held by every process alike (the router) is averaged by data
    parallelism as ever. There is no dense back end: no process can run every expert.

    Args:
        bank: the experts that live here; as many on every process.
        group: a one-dimensional device mesh, or a process group.
        average: divide the experts' gradients, which are sums over all processes' rows, by the number of
            processes: as data parallelism does with all others, where each process's loss is a mean.
    """

    def __init__(self, bank: ExpertBank, group: DeviceMesh | ProcessGroup, average: bool = True) -> None:
        super().__init__()
        self.bank = bank
        self.group = group.get_group() if isinstance(group, DeviceMesh) else group
        self.processes = dist.get_world_size(self.group)
        if average:
            for parameter in bank.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(lambda grad: grad / self.processes)
        self.group_sizes = bank.group_sizes * self.processes
        self.reach = bank.reach

    def row_flops(self) -> tuple[int, ...]:
        return self.bank.row_flops() * self.processes

    def expert(self, index: int, rows: Tensor) -> Tensor:
        raise ValueError("no process holds all experts; use the back end grouped or loop")

    def loop(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        return self.run(rows, index, counts)

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        if not isinstance(rows, Tensor):
            raise ValueError("pixels with their surroundings cannot be sent; use windows with a halo")
        here = self.bank.num_experts
        wanted = torch.tensor(counts, device=rows.device).view(self.processes, here)
        offered = torch.empty_like(wanted)  # [source, expert of this process]
        dist.all_to_all_single(offered, wanted, group=self.group)
        send, receive = wanted.sum(1).tolist(), offered.sum(1).tolist()
        arrived = _exchange(rows[index], send, receive, self.group)
        # What arrives is sorted by source, then expert; experts want it the other way round.
        expert = torch.arange(here, device=rows.device).repeat(self.processes)
        order = expert.repeat_interleave(offered.flatten()).argsort(stable=True)
        done = self.bank.run(arrived, order, tuple(offered.sum(0).tolist()))
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return _exchange(done[inverse], receive, send, self.group)
