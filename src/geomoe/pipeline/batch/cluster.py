"""Many scenes by the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from uuid import uuid4

from distributed import Client, Future, LocalCluster, Worker, as_completed, get_worker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from geomoe.errors import GeomoeError
from geomoe.pipeline.batch.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.batch.one import do_scene, tidy
from geomoe.pipeline.batch.turns import Asked, Turn, Turns
from geomoe.pipeline.batch.worker import temporary

__all__ = ["by_cluster", "by_local_cluster"]

_PATIENCE = 120.0
"""Seconds to wait for a scheduler that is gone."""
_CONNECT = 10.0
"""Seconds for one try to reach it."""
_LOST = (CommClosedError, OSError, TimeoutError, asyncio.CancelledError, CancelledError, ClosedClientError)
"""What futures and clients raise when their scheduler is gone."""


def by_local_cluster(asked: Asked, settings: Sequence[Settings]) -> list[Outcome]:
    """As `by_cluster`, by workers started here: one for each of ``settings``, with its device."""
    with (
        temporary() as folder,
        LocalCluster(
            n_workers=len(settings), threads_per_worker=1, dashboard_address=None,
            local_directory=str(folder), env={"TMPDIR": str(folder)},
        ) as cluster,
    ):  # fmt: skip
        return by_cluster(asked, settings, cluster.scheduler_address)


def by_cluster(asked: Asked, settings: Sequence[Settings], scheduler: str) -> list[Outcome]:
    """As `upscale_many`, by the workers of a cluster.

    A scheduler that goes away is waited for, and told anew of what is not done: what its workers had done by
    then is found done, and what they had begun is gone on with.

    Args:
        asked: the scenes, and what is to be done about them.
        settings: of the workers, by their number where they have one (those of a local cluster do).
        scheduler: its address.

    Raises:
        GeomoeError: a scheduler that cannot be reached.
    """
    for name in ("distributed", "distributed.client"):  # else they print every connection that was lost
        logging.getLogger(name).setLevel(logging.CRITICAL)
    talk = _Talk(asked, settings)
    lost: float | None = None
    while talk.missing:
        before = len(talk.found)
        try:
            with Client(scheduler, timeout=_CONNECT, set_as_default=False) as client:
                talk.over(client)
        except ValueError as error:
            raise GeomoeError(f"{scheduler} is no address of a Dask scheduler: {error}") from error
        except _LOST as error:
            now = time.monotonic()
            lost = now if lost is None or len(talk.found) > before else lost
            if now - lost >= _PATIENCE:
                raise GeomoeError(
                    f"the Dask scheduler {scheduler} cannot be reached: {error}; {len(talk.found)} of "
                    f"{len(asked.tasks)} scenes were done, the same command goes on"
                ) from error
            time.sleep(1)
    return [talk.found[number] for number in range(len(asked.tasks))]


class _Talk:
    """What a cluster is asked for, and what it says; perhaps over several connections."""

    def __init__(self, asked: Asked, settings: Sequence[Settings]) -> None:
        self._asked, self._settings = asked, settings
        self._topic = f"geomoe-{uuid4()}"
        self._turns = Turns(len(asked.tasks), asked.retries)
        self._open = {turn.number: turn for turn in iter(self._turns.next, None)}
        self._at: dict[int, tuple[str, float]] = {}  # the worker that is at a scene, and since when
        self._late: set[int] = set()
        self.found: dict[int, Outcome] = {}

    @property
    def missing(self) -> list[Turn]:
        """What is not done."""
        return [turn for number, turn in self._open.items() if number not in self.found]

    def over(self, client: Client) -> None:
        """Have all that is missing done over one connection; raises one of `_LOST` if it breaks."""
        self._at.clear()
        client.subscribe_topic(self._topic, self._hear)
        futures = {self._submit(client, turn.number): turn.number for turn in self.missing}
        ended = as_completed(list(futures), loop=client.loop)
        with self._watched(client, futures):
            for future in ended:
                number = futures.pop(future)
                outcome = self._outcome(future, number)
                turn = self._open[number]
                if number not in self._late and self._turns.again(turn, outcome):
                    self._open[number] = self._turns.wait()
                    new = self._submit(client, number)
                    futures[new] = number
                    ended.add(new)
                    continue
                self.found[number] = replace(outcome, attempts=turn.attempt)
                self._asked.night.ended(number)
                with suppress(OSError):  # of a terminal that is gone
                    self._asked.heard(self.found[number])

    def _submit(self, client: Client, number: int) -> Future[Outcome]:
        return client.submit(
            _do, number, self._asked.tasks[number], self._settings, self._topic,
            key=f"geomoe-{number}-{uuid4()}", pure=False,
        )  # fmt: skip

    def _outcome(self, future: Future[Outcome], number: int) -> Outcome:
        task = self._asked.tasks[number]
        self._at.pop(number, None)
        if number in self._late:
            late = self._asked.late(number)
            return Outcome(task, "failed", self._asked.limit, message=late)
        if future.status == "cancelled":  # by a scheduler that is gone
            raise CommClosedError("its connection was lost")
        try:
            outcome: Outcome = future.result()
        except _LOST:
            raise
        except Exception as error:  # its workers were killed, or have no geomoe
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Outcome(task, "failed", message=message)
        return outcome

    def _hear(self, event: tuple[float, tuple[int, str, object, object]]) -> None:
        number, what, one, other = event[1]
        if number in self._late:
            return
        if what == "begun":
            self._at[number] = (str(one), time.monotonic())
        elif what == "opened":
            self._asked.night.opened(number, int(str(one)), int(str(other)))
        else:
            self._asked.night.advance(number)

    @contextmanager
    def _watched(self, client: Client, futures: dict[Future[Outcome], int]) -> Iterator[None]:
        """While it lasts, workers that are at a scene for too long are ended, and theirs given up."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(1):
                self._asked.night.tick()
                for number, (worker, since) in list(self._at.items()):
                    if time.monotonic() - since >= self._asked.limit:
                        self._late.add(number)
                        self._cut_off(client, futures, number, worker)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _cut_off(self, client: Client, futures: dict[Future[Outcome], int], number: int, worker: str) -> None:
        self._at = {n: at for n, at in self._at.items() if at[0] != worker}
        with suppress(*_LOST):  # before its worker ends: else another one would be given it
            client.cancel([future for future, n in list(futures.items()) if n == number], force=True)
        with suppress(*_LOST, ValueError):  # of a worker without a nanny, which stays at it
            client.restart_workers([worker], raise_for_error=False)
            tidy(self._asked.tasks[number])


def _do(number: int, task: SceneTask, settings: Sequence[Settings], topic: str) -> Outcome:
    worker = get_worker()
    worker.log_event(topic, (number, "begun", worker.address, None))
    told = _Told(worker, topic, number)
    return do_scene(task, settings[worker.name % len(settings) if isinstance(worker.name, int) else 0], told)


class _Told:
    """Tells whoever asked of every tile."""

    def __init__(self, worker: Worker, topic: str, number: int) -> None:
        self._worker, self._topic, self._number = worker, topic, number

    def start(self, total: int, done: int, note: str) -> None:
        self._worker.log_event(self._topic, (self._number, "opened", total, done))

    def advance(self) -> None:
        self._worker.log_event(self._topic, (self._number, "advanced", None, None))

    def close(self) -> None:
        pass
