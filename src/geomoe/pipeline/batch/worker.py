"""Processes of this machine that do scenes, one after another; started anew when they die or are ended.

A `ProcessPoolExecutor` would not do: it cannot end a process that hangs, and where one dies it gives up the
scenes of all.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, Self

import torch

from geomoe.errors import GeomoeError
from geomoe.pipeline.batch.crew import Advanced, Begun, Event, Opened
from geomoe.pipeline.batch.report import Outcome
from geomoe.pipeline.batch.scene import do_scene
from geomoe.pipeline.request import Request

__all__ = ["Processes", "Worker", "temporary", "undisturbed"]

_GRACE = 5.0
"""Seconds that a process has to tidy up when it is asked to end."""
# Not by fork: torch's threads and GDAL's handles do not survive it.
_SPAWN = multiprocessing.get_context("spawn")


class Processes:
    """An `Engine` of processes, as a context: when it is left they are ended, and what is begun is kept.

    Args:
        pins: of the weights of each scene, by `pinned`.
        shares: of each process, options in place of those of its requests: its device and its memory.
        threads: of torch in each.
        folder: for what they unpack.
    """

    starting = 60.0

    def __init__(
        self, pins: Sequence[str], shares: Sequence[dict[str, Any]], threads: int, folder: Path
    ) -> None:
        self._pins = pins
        self._free = [Worker(share, threads, folder / str(i)) for i, share in enumerate(shares)]
        self._at: dict[Worker, tuple[int, Request]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            workers = [*self._free, *self._at]
            for worker in workers:
                worker.ask_to_end()
            for worker in workers:
                worker.stop()

    @property
    def free(self) -> bool:
        """Whether one has nothing to do."""
        return bool(self._free)

    def submit(self, number: int, request: Request) -> None:
        """Have a scene done by one that has nothing to do."""
        worker = self._free.pop()
        self._at[worker] = number, request
        worker.submit(request, self._pins[number])

    def events(self, seconds: float) -> Iterable[tuple[int, Event]]:
        """The next message of each that has sent one, or has died."""
        if not self._at:
            time.sleep(seconds)
        ready = wait([worker.pipe for worker in self._at], seconds) if self._at else []
        for worker in [worker for worker in self._at if worker.pipe in ready]:
            number, request = self._at[worker]
            message = worker.hear()
            if message is None:
                killed = "its process was killed, perhaps for want of memory"
                message = Outcome(request, "failed", message=killed)
            if isinstance(message, Outcome):
                del self._at[worker]
                self._free.append(worker)
            yield number, message

    def stop(self, number: int) -> None:
        """End the one that works on a scene."""
        worker = next(worker for worker, (at, _) in self._at.items() if at == number)
        worker.stop()
        del self._at[worker]
        self._free.append(worker)


class Worker:
    """A place at which a process does scenes.

    Args:
        share: options in place of those of its requests.
        threads: of torch.
        folder: for what it unpacks; whatever is in it is removed when the process ends, however it does.
    """

    def __init__(self, share: dict[str, Any], threads: int, folder: Path) -> None:
        self._share, self._threads, self._folder = share, threads, folder
        self._process: BaseProcess | None = None
        self.pipe: Connection

    def submit(self, request: Request, pin: str) -> None:
        """Begin a scene, in the process that is there or in a new one."""
        order = replace(request, **self._share), pin
        if self._process is not None and self._process.is_alive():
            with suppress(OSError):
                self.pipe.send(order)
                return
        self.stop()
        self._start()
        with suppress(OSError):  # what became of it, `hear` tells
            self.pipe.send(order)

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, self._threads, self._folder), daemon=True)
        # The keyboard interrupts all processes of a terminal; this one is to be ended by its parent alone.
        with undisturbed():
            self._process.start()
        theirs.close()

    def hear(self) -> Event | None:
        """The next message; ``None`` if the process has died."""
        try:
            message: Event = self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            return None
        return message

    def ask_to_end(self) -> None:
        """Have the process end as soon as it can; `stop` waits for it."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End the process, at once if it does not do so when it is asked to; what it unpacked is removed."""
        if self._process is None:
            return
        self.ask_to_end()
        self._process.join(_GRACE)
        self._process.kill()
        self._process.join()
        self._process = None
        self.pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder for what the processes unpack: whatever becomes of them, it is removed."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="geomoe-", ignore_cleanup_errors=True)
    except OSError as error:
        raise GeomoeError(f"no temporary folder can be made: {error.strerror}; set TMPDIR") from error
    with folder as name:
        yield Path(name)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off interruptions from the keyboard, for this thread and what it starts, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Ended(BaseException):
    """Asked to end; no error, so that all is tidied up on the way out."""


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise _Ended


def _serve(pipe: Connection, threads: int, folder: Path) -> None:
    """The whole life of a process."""
    with suppress(_Ended, EOFError, OSError):
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        tempfile.tempdir = str(folder)
        threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # as the command line does; see there
        torch.set_num_threads(threads)
        while True:
            request, pin = pipe.recv()
            pipe.send(Begun())
            pipe.send(do_scene(request, pin, _Told(pipe)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _leave(folder)  # what torch would tidy up at leisure, the system does at once


def _end_with_parent(folder: Path) -> None:
    """A process whose parent was killed would wait for work for ever; what it has begun is kept."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _leave(folder)


def _leave(folder: Path) -> NoReturn:
    """End this process; nobody may be left to remove what it unpacked."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # others may be there yet
        folder.parent.rmdir()
    os._exit(0)


class _Told:
    """Tells the parent of every tile."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def start(self, total: int, done: int, note: str) -> None:
        self._pipe.send(Opened(total, done))

    def advance(self) -> None:
        self._pipe.send(Advanced())

    def close(self) -> None:
        pass
