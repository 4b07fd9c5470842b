"""How much memory there is, and how many tiles at a time it allows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

from geomoe.errors import GeomoeError
from geomoe.pipeline.cgroup import memory_left
from geomoe.raster.write.target import in_bytes

__all__ = ["available_memory", "fitting_workers", "forget_peak", "peak_memory"]


def available_memory() -> int:
    """Bytes that this process may still take: what the machine, its control groups and its limits leave."""
    free: list[int | None] = [psutil.virtual_memory().available, memory_left()]
    with suppress(ImportError, OSError, ValueError):  # not on Windows
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            free.append(max(0, soft - psutil.Process().memory_info().vms))
    return min(each for each in free if each is not None)


def forget_peak() -> None:
    """Begin anew to note the most memory that this process takes; does nothing elsewhere than on Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """The most bytes that this process took since :func:`forget_peak`; None elsewhere than on Linux."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    return None


def fitting_workers(idle: int, each: int, tiles: int, device: torch.device, budget: int | None) -> int:
    """How many tiles to do at a time: one for each of torch's threads, as far as memory goes.

    Args:
        idle: bytes that a job takes without a tile.
        each: bytes that a tile takes while it is done.
        tiles: that there are.
        device: other than on a processor, one tile at a time.
        budget: bytes that may be taken in all; half of what is free if ``None``.

    Raises:
        GeomoeError: if it does not suffice for one tile.
    """
    free = available_memory()
    if idle + each > min(free, free if budget is None else budget):
        there = f"{in_bytes(free)} are free"
        if budget is not None and budget < free:
            there = f"{in_bytes(budget)} may be used (--memory)"
        raise GeomoeError(
            f"the job needs about {in_bytes(idle + each)} of memory and {there}; use a smaller --tile"
        )
    if device.type != "cpu":
        return 1
    share = free // 2 if budget is None else min(budget, free)
    return max(1, min(torch.get_num_threads(), tiles, (share - idle) // max(1, each)))
