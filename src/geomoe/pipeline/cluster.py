"""Many scenes by the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

from distributed import Client, LocalCluster, as_completed, get_worker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from geomoe.errors import GeomoeError
from geomoe.pipeline.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.one import do_scene
from geomoe.pipeline.progress import Night

__all__ = ["by_cluster", "by_local_cluster"]

_PATIENCE = 120.0
"""Seconds to wait for a scheduler that is gone, or for whoever is at a scene."""
_CONNECT = 10.0
"""Seconds for one try to reach it."""
_LOST = (CommClosedError, OSError, TimeoutError, asyncio.CancelledError, CancelledError, ClosedClientError)
"""What futures and clients raise when their scheduler is gone."""


def by_local_cluster(
    tasks: Sequence[SceneTask],
    settings: Sequence[Settings],
    retries: int,
    heard: Callable[[Outcome], None],
    night: Night,
) -> list[Outcome]:
    """As `by_cluster`, by workers started here: one for each of ``settings``, with its device."""
    with LocalCluster(n_workers=len(settings), threads_per_worker=1, dashboard_address=None) as cluster:
        return by_cluster(tasks, settings, cluster.scheduler_address, retries, heard, night)


def by_cluster(
    tasks: Sequence[SceneTask],
    settings: Sequence[Settings],
    scheduler: str,
    retries: int,
    heard: Callable[[Outcome], None],
    night: Night,
) -> list[Outcome]:
    """As `upscale_many`, by the workers of a cluster.

    A scheduler that goes away is waited for, and told anew of what is not done: what its workers had done by
    then is found done, and what they had begun is gone on with.

    Args:
        tasks: the scenes.
        settings: of the workers, by their number where they have one (those of a local cluster do).
        scheduler: its address.
        retries: how often a scene is tried again.
        heard: is told what became of each scene.
        night: is told of every scene.

    Raises:
        GeomoeError: a scheduler that cannot be reached.
    """
    for name in ("distributed", "distributed.client"):  # else they print every connection that was lost
        logging.getLogger(name).setLevel(logging.CRITICAL)
    found: dict[int, Outcome] = {}
    failures = dict.fromkeys(range(len(tasks)), 0)
    lost: float | None = None
    while missing := [number for number in failures if number not in found]:
        before = len(found)
        try:
            with Client(scheduler, timeout=_CONNECT, set_as_default=False) as client:
                _ask(client, tasks, settings, missing, failures, retries, found, heard, night)
        except ValueError as error:
            raise GeomoeError(f"{scheduler} is no address of a Dask scheduler: {error}") from error
        except _LOST as error:
            now = time.monotonic()
            lost = now if lost is None or len(found) > before else lost
            if now - lost >= _PATIENCE:
                raise GeomoeError(
                    f"the Dask scheduler {scheduler} cannot be reached: {error}; {len(found)} of "
                    f"{len(tasks)} scenes were done, the same command goes on"
                ) from error
            time.sleep(1)
    return [found[number] for number in range(len(tasks))]


def _ask(
    client: Client,
    tasks: Sequence[SceneTask],
    settings: Sequence[Settings],
    missing: Sequence[int],
    failures: dict[int, int],
    retries: int,
    found: dict[int, Outcome],
    heard: Callable[[Outcome], None],
    night: Night,
) -> None:
    def submit(number: int) -> object:
        return client.submit(_do, tasks[number], settings, key=f"geomoe-{number}-{uuid4()}", pure=False)

    futures = {submit(number): number for number in missing}
    busy_since: dict[int, float] = {}
    ended = as_completed(list(futures), loop=client.loop)
    for future in ended:
        number = futures.pop(future)
        if future.status == "cancelled":  # by a scheduler that is gone
            raise CommClosedError("its connection was lost")
        try:
            outcome = future.result()
        except _LOST:
            raise
        except Exception as error:  # its workers were killed, or have no geomoe
            outcome = Outcome(
                tasks[number], "failed", message=f"{type(error).__name__}: {' '.join(str(error).split())}"
            )
        again = False
        if outcome.status == "failed":
            failures[number] += 1
            again = failures[number] <= retries
        elif outcome.status == "busy":  # perhaps a worker that lost its scheduler is still at it
            since = busy_since.setdefault(number, time.monotonic())
            again = time.monotonic() - since < _PATIENCE
            time.sleep(1 if again else 0)
        if again:
            new = submit(number)
            futures[new] = number
            ended.add(new)
            continue
        found[number] = replace(outcome, attempts=failures[number] + (outcome.status != "failed"))
        night.ended(number)
        with suppress(OSError):  # of a terminal that is gone
            heard(found[number])


def _do(task: SceneTask, settings: Sequence[Settings]) -> Outcome:
    name = get_worker().name
    return do_scene(task, settings[name % len(settings) if isinstance(name, int) else 0])
