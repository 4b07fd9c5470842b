"""Many scenes by the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

from distributed import Client, Future, LocalCluster, Worker, get_worker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from geomoe.errors import GeomoeError
from geomoe.pipeline.batch.crew import Advanced, Begun, Crew, Event, Opened
from geomoe.pipeline.batch.report import Outcome
from geomoe.pipeline.batch.scene import do_scene
from geomoe.pipeline.batch.worker import temporary
from geomoe.pipeline.request import Request

__all__ = ["by_cluster", "by_local_cluster"]

_PATIENCE = 120.0
"""Seconds to wait for a scheduler that is gone."""
_CONNECT = 10.0
"""Seconds for one try to reach it."""
_LOST = (CommClosedError, OSError, TimeoutError, asyncio.CancelledError, CancelledError, ClosedClientError)
"""What futures and clients raise when their scheduler is gone."""


def by_local_cluster(crew: Crew, pins: Sequence[str], shares: Sequence[dict[str, Any]]) -> None:
    """As `by_cluster`, by workers started here: one for each of ``shares``."""
    with (
        temporary() as folder,
        LocalCluster(
            n_workers=len(shares), threads_per_worker=1, dashboard_address=None,
            local_directory=str(folder), env={"TMPDIR": str(folder)},
        ) as cluster,
    ):  # fmt: skip
        by_cluster(crew, pins, shares, cluster.scheduler_address)


def by_cluster(crew: Crew, pins: Sequence[str], shares: Sequence[dict[str, Any]], scheduler: str) -> None:
    """Have the scenes done by the workers of a cluster.

    A scheduler that goes away is waited for, and told anew of what is not done: what its workers had done by
    then is found done, and what they had begun is resumed.

    Args:
        crew: of the scenes.
        pins: of the weights of each scene.
        shares: options of the workers, by their number where they have one (those of a local cluster do).
        scheduler: its address.

    Raises:
        GeomoeError: a scheduler that cannot be reached.
    """
    for name in ("distributed", "distributed.client"):  # else they print every connection that was lost
        logging.getLogger(name).setLevel(logging.CRITICAL)
    lost: float | None = None
    while len(crew.found) < len(crew.requests):
        before = len(crew.found)
        try:
            with Client(scheduler, timeout=_CONNECT, set_as_default=False) as client:
                crew.work(_Cluster(client, pins, shares))
        except ValueError as error:
            raise GeomoeError(f"{scheduler} is not the address of a Dask scheduler: {error}") from error
        except _LOST as error:
            now = time.monotonic()
            lost = now if lost is None or len(crew.found) > before else lost
            if now - lost >= _PATIENCE:
                raise GeomoeError(
                    f"the Dask scheduler {scheduler} cannot be reached: {error}; {len(crew.found)} of "
                    f"{len(crew.requests)} scenes were done, the same command resumes it"
                ) from error
            time.sleep(1)


_EVENTS: dict[str, Callable[..., Event]] = {kind.__name__: kind for kind in (Begun, Opened, Advanced)}


class _Cluster:
    """An `Engine` of a cluster, over one connection; what it does raises one of `_LOST` if that breaks."""

    starting = float("inf")
    free = True

    def __init__(self, client: Client, pins: Sequence[str], shares: Sequence[dict[str, Any]]) -> None:
        self._client, self._pins, self._shares = client, pins, shares
        self._topic = f"geomoe-{uuid4()}"
        self._futures: dict[int, Future[Outcome]] = {}
        self._requests: dict[int, Request] = {}
        self._at: dict[int, str] = {}  # the worker of a scene
        self._heard: queue.SimpleQueue[tuple[str, Event | None]] = queue.SimpleQueue()
        client.subscribe_topic(self._topic, self._hear)

    def _hear(self, told: tuple[float, tuple[Any, ...]]) -> None:
        key, kind, *said = told[1]
        self._heard.put((key, _EVENTS[kind](*said)))

    def submit(self, number: int, request: Request) -> None:
        """Put a scene in the scheduler's queue."""
        key = f"geomoe-{number}-{uuid4()}"
        future = self._client.submit(
            _do, key, request, self._pins[number], self._shares, self._topic, key=key, pure=False
        )
        self._futures[number], self._requests[number] = future, request
        future.add_done_callback(lambda future: self._heard.put((future.key, None)))

    def events(self, seconds: float) -> Iterable[tuple[int, Event]]:
        """The next event that there is."""
        with suppress(queue.Empty):
            key, event = self._heard.get(timeout=max(0.0, seconds))
            number = next((n for n, future in self._futures.items() if future.key == key), None)
            if number is not None:
                if isinstance(event, Begun):
                    self._at[number] = event.address
                yield number, self._outcome(number) if event is None else event

    def _outcome(self, number: int) -> Outcome:
        future, request = self._futures.pop(number), self._requests[number]
        self._at.pop(number, None)
        if future.status == "cancelled":  # by a scheduler that is gone
            raise CommClosedError("its connection was lost")
        try:
            outcome: Outcome = future.result()
        except _LOST:
            raise
        except Exception as error:  # its workers were killed, or have no geomoe
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Outcome(request, "failed", message=message)
        return outcome

    def stop(self, number: int) -> None:
        """End the worker of a scene; others that it was given go to other workers."""
        future, worker = self._futures.pop(number), self._at.pop(number, None)
        with suppress(*_LOST):  # before its worker ends: else another one would be given it
            self._client.cancel([future], force=True)
        with suppress(*_LOST, ValueError):  # of a worker without a nanny, which stays at it
            if worker is not None:
                self._client.restart_workers([worker], raise_for_error=False)


def _do(key: str, request: Request, pin: str, shares: Sequence[dict[str, Any]], topic: str) -> Outcome:
    worker = get_worker()
    told = _Told(worker, topic, key)
    told.send(Begun(worker.address))
    share = shares[worker.name % len(shares) if isinstance(worker.name, int) else 0]
    return do_scene(replace(request, **share), pin, told)


class _Told:
    """Tells whoever asked of every tile."""

    def __init__(self, worker: Worker, topic: str, key: str) -> None:
        self._worker, self._topic, self._key = worker, topic, key

    def send(self, event: Begun | Opened | Advanced) -> None:
        self._worker.log_event(self._topic, (self._key, type(event).__name__, *event))  # all plain values

    def start(self, total: int, done: int, note: str) -> None:
        self.send(Opened(total, done))

    def advance(self) -> None:
        self.send(Advanced())

    def close(self) -> None:
        pass
