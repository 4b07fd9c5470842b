"""Many scenes, done by a few processes of this machine or by a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from geomoe.models.device import devices_of
from geomoe.pipeline.batch.crew import Crew
from geomoe.pipeline.batch.report import Outcome
from geomoe.pipeline.batch.scene import pinned
from geomoe.pipeline.batch.worker import Processes, temporary
from geomoe.pipeline.memory import available_memory
from geomoe.pipeline.progress import Night
from geomoe.pipeline.request import Request

__all__ = ["divided", "predict_many"]


def predict_many(
    requests: Sequence[Request],
    *,
    processes: int | None = None,
    scheduler: str | None = None,
    retries: int = 1,
    limit: float | None = None,
    heard: Callable[[Outcome], None] = lambda outcome: None,
    night: Night | None = None,
) -> list[Outcome]:
    """Super-resolve many scenes; one that fails does not stop the others.

    A scene that was made before from the same scene with the same settings is left as it is (even if others
    may be overwritten), and one that was begun is resumed. One that another process works on (perhaps of
    another machine, where the disk is shared) is left to that, and looked at again at the end, for as long as
    that shows signs of life. A process that dies, for want of memory or otherwise, is replaced, and its scene
    tried again.

    Args:
        requests: from :func:`read_manifest`, or made, with models by their names. Device and memory of the
            first are for all, and the memory is for all processes of this machine together.
        processes: how many; one for each accelerator or for every four processors if ``None``.
        scheduler: address of a Dask scheduler (``tcp://host:8786``) whose workers see the same disks; the
            memory of a request is then that of each worker. Or ``local``, for a cluster of ``processes`` on
            this machine. Needs ``geomoe[dask]``.
        retries: how often a scene that failed, or took too long, is tried again, after the others.
        limit: seconds that a scene may take; then its process is ended. What is done of it is kept.
        heard: called with what became of each scene, as it ends.
        night: called for every tile.

    Returns:
        In the order of the requests.

    Raises:
        GeomoeError: weights or a device that are not there, or a scheduler that cannot be reached.
    """
    if not requests:
        return []
    asked, pins = zip(*pinned(requests), strict=True)
    crew = Crew(
        asked, retries, float("inf") if limit is None else limit, heard, night or Night(len(requests))
    )
    try:
        if scheduler is not None and scheduler != "local":
            from geomoe.pipeline.batch.cluster import by_cluster

            by_cluster(crew, pins, [{}], scheduler)
            return crew.outcomes
        shares, threads = divided(requests[0], len(requests), processes)
        if scheduler is not None:
            from geomoe.pipeline.batch.cluster import by_local_cluster

            by_local_cluster(crew, pins, shares)
        else:
            with temporary() as folder, Processes(pins, shares, threads, folder) as engine:
                crew.work(engine)
    except BaseException as error:
        if not isinstance(error, Exception):  # somebody ended it
            error.add_note(crew.so_far)
        raise
    return crew.outcomes


def divided(request: Request, scenes: int, processes: int | None) -> tuple[list[dict[str, Any]], int]:
    """Device and share of the memory of each process, as options of a request; and the threads of each.

    Args:
        request: whose device and memory are those of all together.
        scenes: how many there are to do.
        processes: how many at most; as for `predict_many`.
    """
    devices = devices_of(request.device)
    count = processes or (len(devices) if devices[0] != "cpu" else max(1, torch.get_num_threads() // 4))
    count = max(1, min(count, scenes))
    threads = max(1, torch.get_num_threads() // count)
    budget = (available_memory() // 2 if request.memory is None else request.memory) // count
    return [{"device": devices[i % len(devices)], "memory": budget} for i in range(count)], threads
