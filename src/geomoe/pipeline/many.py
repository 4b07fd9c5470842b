"""Many scenes, done by a few processes of this machine or by a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace

import torch

from geomoe.models import load
from geomoe.models.device import devices_of
from geomoe.pipeline.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.memory import available_memory
from geomoe.pipeline.one import do_scene
from geomoe.pipeline.reliability import Judge

__all__ = ["divided", "upscale_many"]


def upscale_many(
    tasks: Sequence[SceneTask],
    settings: Settings,
    *,
    processes: int | None = None,
    scheduler: str | None = None,
    retries: int = 1,
    heard: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Super-resolve many scenes; none of them stands in the way of another.

    A scene that was made before from the same scene with the same settings is left as it is (even if others
    may be overwritten), one that was begun is gone on with, and one that another process is at (perhaps of
    another machine, where the disk is shared and locks work over it) is left to that. A process that dies,
    for want of memory or otherwise, is replaced, and its scene tried again.

    Args:
        tasks: from :func:`read_manifest`, or made.
        settings: for all of them.
        processes: how many; one for each accelerator or for every four processors if ``None``.
        scheduler: address of a Dask scheduler (``tcp://host:8786``) whose workers see the same disks;
            ``settings.memory`` is then each one's. Or ``local``, for a cluster of ``processes`` on this
            machine. Needs ``geomoe[dask]``.
        retries: how often a scene is tried again, after the others.
        heard: is told what became of each scene, as it ends.

    Returns:
        In the order of the tasks.

    Raises:
        GeomoeError: weights or a device that are not there, or a scheduler that cannot be reached.
    """
    model = load(settings.model, settings.scale)
    judged = settings.fallback or any(task.reliability for task in tasks)
    reference = Judge(model).reference.digest() if judged else ""
    settings = replace(settings, weights=model.hash, reference=reference)
    if settings.model.endswith(".safetensors"):  # workers may have been started in another folder
        settings = replace(settings, model=os.path.abspath(settings.model))
    each, threads = divided(settings, len(tasks), processes)
    if scheduler is not None:
        from geomoe.pipeline.cluster import by_cluster, by_local_cluster

        if scheduler == "local":
            return by_local_cluster(tasks, each, retries, heard)
        return by_cluster(tasks, [settings], scheduler, retries, heard)
    found: dict[int, Outcome] = {}
    waiting = deque((number, 1) for number in range(len(tasks)))
    slots = [_Slot(of_slot, threads) for of_slot in each]
    with _ended(slots):
        running: dict[Future[Outcome], tuple[_Slot, int, int]] = {}
        free = list(slots)
        while waiting or running:
            while waiting and free:
                number, attempt = waiting.popleft()
                slot = free.pop()
                running[slot.submit(tasks[number])] = (slot, number, attempt)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, number, attempt = running.pop(future)
                free.append(slot)
                outcome = replace(slot.outcome(future, tasks[number]), attempts=attempt)
                if outcome.status == "failed" and attempt <= retries:
                    waiting.append((number, attempt + 1))
                    continue
                found[number] = outcome
                heard(outcome)
    return [found[number] for number in range(len(tasks))]


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


class _Slot:
    """One process, replaced when it dies."""

    def __init__(self, settings: Settings, threads: int) -> None:
        self._settings, self._threads = settings, threads
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        # Not by fork: torch's threads and GDAL's handles do not survive it.
        return ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(self._threads,),
        )

    def submit(self, task: SceneTask) -> Future[Outcome]:
        try:
            return self._pool.submit(do_scene, task, self._settings)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._pool.shutdown()
            self._pool = self._start()
            return self._pool.submit(do_scene, task, self._settings)

    def outcome(self, future: Future[Outcome], task: SceneTask) -> Outcome:
        try:
            return future.result()
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._start()
            return Outcome(task, "failed", message="its process was killed, perhaps for want of memory")

    def stop(self, *, at_once: bool) -> None:
        if at_once:  # what is begun is kept; the next one goes on
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def _ended(slots: Sequence[_Slot]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for slot in slots:
            slot.stop(at_once=True)
        raise
    for slot in slots:
        slot.stop(at_once=False)


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever; what it has begun is kept."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
