"""Many scenes, done by a few processes of this machine or by a Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait

import torch

from geomoe.models.device import devices_of
from geomoe.pipeline.batch.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.batch.one import pinned, tidy
from geomoe.pipeline.batch.turns import Asked, Turn, Turns
from geomoe.pipeline.batch.worker import Advanced, Begun, Opened, Worker, temporary, undisturbed
from geomoe.pipeline.memory import available_memory
from geomoe.pipeline.progress import Night

__all__ = ["divided", "upscale_many"]

_STARTING = 60.0
"""Seconds that a process may take until it begins its first scene."""
_TICK = 1.0
"""Seconds after which a listener hears that time goes by."""


def upscale_many(
    tasks: Sequence[SceneTask],
    settings: Settings,
    *,
    processes: int | None = None,
    scheduler: str | None = None,
    retries: int = 1,
    limit: float | None = None,
    heard: Callable[[Outcome], None] = lambda outcome: None,
    night: Night | None = None,
) -> list[Outcome]:
    """Super-resolve many scenes; none of them stands in the way of another.

    A scene that was made before from the same scene with the same settings is left as it is (even if others
    may be overwritten), and one that was begun is gone on with. One that another process is at (perhaps of
    another machine, where the disk is shared) is left to that, and looked at again at the end, for as long as
    that shows signs of life. A process that dies, for want of memory or otherwise, is replaced, and its scene
    tried again.

    Args:
        tasks: from :func:`read_manifest`, or made.
        settings: for all of them.
        processes: how many; one for each accelerator or for every four processors if ``None``.
        scheduler: address of a Dask scheduler (``tcp://host:8786``) whose workers see the same disks;
            ``settings.memory`` is then each one's. Or ``local``, for a cluster of ``processes`` on this
            machine. Needs ``geomoe[dask]``.
        retries: how often a scene is tried again, after the others.
        limit: seconds that a scene may take; then its process is ended, and it is not tried again. What is
            done of it is kept.
        heard: is told what became of each scene, as it ends.
        night: is told of every tile.

    Returns:
        In the order of the tasks.

    Raises:
        GeomoeError: weights or a device that are not there, or a scheduler that cannot be reached.
    """
    settings = pinned(settings, judged=settings.fallback or any(task.reliability for task in tasks))
    asked = Asked(tasks, retries, float("inf") if limit is None else limit, heard, night or Night(len(tasks)))
    each, threads = divided(settings, len(tasks), processes)
    if scheduler is not None:
        from geomoe.pipeline.batch.cluster import by_cluster, by_local_cluster

        if scheduler == "local":
            return by_local_cluster(asked, each)
        return by_cluster(asked, [settings], scheduler)
    with (
        temporary() as folder,
        _ended([Worker(of_worker, threads, folder / str(i)) for i, of_worker in enumerate(each)]) as workers,
    ):
        return _Crew(asked, workers).work()


def divided(settings: Settings, scenes: int, processes: int | None) -> tuple[list[Settings], int]:
    """Settings of each process, with its device and its share of the memory; and the threads of each.

    Args:
        settings: for all of them together.
        scenes: how many there are to do.
        processes: how many at most; as for `upscale_many`.
    """
    devices = devices_of(settings.device)
    count = processes or (len(devices) if devices[0] != "cpu" else max(1, torch.get_num_threads() // 4))
    count = max(1, min(count, scenes))
    threads = max(1, torch.get_num_threads() // count)
    budget = (available_memory() // 2 if settings.memory is None else settings.memory) // count
    return [replace(settings, device=devices[i % len(devices)], memory=budget) for i in range(count)], threads


@dataclass
class _Running:
    """A scene that is being done, and when that must have ended."""

    turn: Turn
    deadline: float


class _Crew:
    """Workers, and the scenes that they are at."""

    def __init__(self, asked: Asked, workers: Sequence[Worker]) -> None:
        self._asked, self._tasks, self._night = asked, asked.tasks, asked.night
        self._turns = Turns(len(asked.tasks), asked.retries)
        self._free = list(workers)
        self._running: dict[Worker, _Running] = {}
        self._found: dict[int, Outcome] = {}

    def work(self) -> list[Outcome]:
        """Do all scenes."""
        while self._turns or self._running:
            while self._free and (turn := self._turns.next()) is not None:
                worker = self._free.pop()
                self._running[worker] = _Running(turn, time.monotonic() + _STARTING + self._asked.limit)
                worker.submit(self._tasks[turn.number])
            pause = min(_TICK, self._turns.pause) if self._free else _TICK
            if not self._running:
                time.sleep(pause)
            ready = wait([worker.pipe for worker in self._running], pause)
            for worker in [worker for worker in self._running if worker.pipe in ready]:
                self._hear(worker)
            for worker in [w for w, r in self._running.items() if r.deadline <= time.monotonic()]:
                self._cut_off(worker)
            self._night.tick()
        return [self._found[number] for number in range(len(self._tasks))]

    def _hear(self, worker: Worker) -> None:
        running = self._running[worker]
        number = running.turn.number
        message = worker.hear()
        match message:
            case Begun():
                running.deadline = time.monotonic() + self._asked.limit
            case Opened(total, done):
                self._night.opened(number, total, done)
            case Advanced():
                self._night.advance(number)
            case Outcome():
                self._end(worker, message)
            case None:
                killed = "its process was killed, perhaps for want of memory"
                self._end(worker, Outcome(self._tasks[number], "failed", message=killed))

    def _cut_off(self, worker: Worker) -> None:
        worker.stop()
        number = self._running[worker].turn.number
        tidy(self._tasks[number])
        late = Outcome(self._tasks[number], "failed", self._asked.limit, message=self._asked.late(number))
        self._end(worker, late, again=False)

    def _end(self, worker: Worker, outcome: Outcome, *, again: bool = True) -> None:
        turn = self._running.pop(worker).turn
        self._free.append(worker)
        if again and self._turns.again(turn, outcome):
            return
        self._found[turn.number] = replace(outcome, attempts=turn.attempt)
        self._night.ended(turn.number)
        with suppress(OSError):  # of a terminal that is gone
            self._asked.heard(self._found[turn.number])


@contextmanager
def _ended(workers: Sequence[Worker]) -> Iterator[Sequence[Worker]]:
    try:
        yield workers
    finally:
        with undisturbed():
            for worker in workers:  # what is begun is kept; the next one goes on
                worker.ask_to_end()
            for worker in workers:
                worker.stop()
