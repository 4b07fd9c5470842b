"""Expert parallelism: experts on several processes, rows sent to where their experts live.

On PyTorch's own distributed stack: a device mesh or process group, all-to-all, and parameters that are
DTensors, so that checkpoints, optimisers and ``fully_shard`` know that each process holds a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import ProcessGroup
from torch.distributed.tensor import DTensor, Shard
from torch.func import functional_call
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from geomoe.moe.experts.bank import ExpertBank, Rows

__all__ = ["ParallelExperts", "clip_grad_norm_"]


class _Exchange(torch.autograd.Function):
    """All-to-all of rows; its gradient is the way back, times ``factor``."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, send: list[int], receive: list[int], group: ProcessGroup, factor: float
    ) -> Tensor:
        ctx.splits, ctx.group, ctx.factor = (send, receive), group, factor
        out = rows.new_empty(sum(receive), *rows.shape[1:])
        dist.all_to_all_single(out, rows.contiguous(), receive, send, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        send, receive = ctx.splits
        back = _exchange(grad, receive, send, ctx.group)
        return back if ctx.factor == 1 else back * ctx.factor, None, None, None, None


def _exchange(
    rows: Tensor, send: list[int], receive: list[int], group: ProcessGroup, factor: float = 1.0
) -> Tensor:
    out: Tensor = _Exchange.apply(rows, send, receive, group, factor)  # type: ignore[no-untyped-call]
    return out


class ParallelExperts(ExpertBank):
    """A bank of which every process holds a part: E experts a process, ``E * processes`` in all.

    It takes the place of a bank: routers, plans and dispatch know nothing of it. The experts of the first
    process come first. Every process of the group has to call it, each with rows of its own. Experts learn
    from the rows of all processes; what is held by every process alike (the router) is averaged by data
    parallelism as ever. There is no dense back end: no process can run every expert.

    Parameters are DTensors, sharded by expert: ``state_dict()`` and the optimiser's state are those of all
    experts, for ``torch.distributed.checkpoint``. To clip gradients see :func:`clip_grad_norm_`.

    Args:
        bank: the experts that live here; as many on every process, and of the same shapes.
        group: a one-dimensional device mesh, or a process group.
        average: divide the experts' gradients, which are sums over all processes' rows, by the number of
            processes: as data parallelism does with all others, where each process's loss is a mean.

    Raises:
        ValueError: a mesh of more dimensions, or a parameter that is a scalar.
    """

    def __init__(self, bank: ExpertBank, group: DeviceMesh | ProcessGroup, average: bool = True) -> None:
        super().__init__()
        if bank.shares:
            raise ValueError(
                f"ParallelExperts: experts of a {type(bank).__name__} have parameters in common, of which "
                "each process would learn its own; expected experts that share none"
            )
        mesh = group if isinstance(group, DeviceMesh) else _mesh(group, bank)
        if mesh.ndim != 1:
            raise ValueError(f"group: expected a mesh of one dimension, such as mesh['experts'], not {mesh}")
        self.bank, self.group, self.processes, self.average = bank, mesh.get_group(), mesh.size(), average
        self.group_sizes = bank.group_sizes * self.processes
        self.reach = bank.reach
        for module in bank.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if not parameter.dim():
                    raise ValueError(f"ParallelExperts: {name} is a scalar; make it a tensor of one value")
                setattr(module, name, nn.Parameter(_split(parameter.detach(), mesh), parameter.requires_grad))
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, _split(buffer, mesh) if buffer.dim() else buffer)

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
        # Gradients are divided as they come to the experts, and multiplied again as they go back to the rows:
        # hooks on parameters would be lost where those are replaced (to_empty, load_state_dict).
        share = 1 / self.processes if self.average else 1.0
        arrived = _exchange(rows[index], send, receive, self.group, 1 / share)
        # What arrives is sorted by source, then expert; experts want it the other way round.
        expert = torch.arange(here, device=rows.device).repeat(self.processes)
        order = expert.repeat_interleave(offered.flatten()).argsort(stable=True)
        mine = {name: _local(t) for name, t in self._tensors()}
        done = functional_call(self.bank, mine, (arrived, order, tuple(offered.sum(0).tolist())))
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return _exchange(done[inverse], receive, send, self.group, share)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.bank.named_parameters()
        yield from self.bank.named_buffers()


def _mesh(group: ProcessGroup, bank: ExpertBank) -> DeviceMesh:
    device = next((p.device.type for p in bank.parameters()), "meta")
    if device == "meta":
        device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    return DeviceMesh.from_group(group, device)


def _split(tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    return DTensor.from_local(tensor, mesh, [Shard(0)], run_check=False)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """As ``torch.nn.utils.clip_grad_norm_``, which refuses split experts beside parameters that are not.

    Every process gets the same norm, and gradients that are held by all alike stay alike. To be called by
    all processes, after data parallelism has averaged the others' gradients.

    Args:
        parameters: of the whole model.
        max_norm: largest norm that is left.
        norm_type: p of the p-norm; infinity too.

    Returns:
        The norm before.
    """
    alike: dict[DeviceMesh | None, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            alike.setdefault(mesh, []).append(parameter)
    norms = [
        get_total_norm([p.grad for p in some if p.grad is not None], norm_type) for some in alike.values()
    ]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = torch.linalg.vector_norm(torch.stack(whole), norm_type) if whole else torch.zeros(())
    for some in alike.values():
        clip_grads_with_norm_(some, max_norm, total)
    return total
