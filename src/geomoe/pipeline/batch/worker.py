"""A process that does scenes, one after another; started anew when it dies or is ended."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

from geomoe.errors import GeomoeError
from geomoe.pipeline.batch.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.batch.one import do_scene

__all__ = ["Advanced", "Begun", "Opened", "Worker", "temporary", "undisturbed"]

_GRACE = 5.0
"""Seconds that a process has to tidy up when it is asked to end."""
# Not by fork: torch's threads and GDAL's handles do not survive it.
_SPAWN = multiprocessing.get_context("spawn")


class Begun(NamedTuple):
    """A process has its imports behind it, and begins a scene."""


class Opened(NamedTuple):
    """A scene has so many tiles, of which some are done."""

    total: int
    done: int


class Advanced(NamedTuple):
    """One more tile is done."""


class Worker:
    """A place at which a process does scenes.

    Args:
        settings: of all its scenes.
        threads: of torch.
        folder: for what it unpacks; whatever is in it is removed when the process ends, however it does.
    """

    def __init__(self, settings: Settings, threads: int, folder: Path) -> None:
        self._settings, self._threads, self._folder = settings, threads, folder
        self._process: BaseProcess | None = None
        self.pipe: Connection

    def submit(self, task: SceneTask) -> None:
        """Begin a scene, in the process that is there or in a new one."""
        if self._process is not None and self._process.is_alive():
            with suppress(OSError):
                self.pipe.send(task)
                return
        self.stop()
        self._start()
        with suppress(OSError):  # what became of it, `hear` tells
            self.pipe.send(task)

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_serve, args=(theirs, self._settings, self._threads, self._folder), daemon=True
        )
        # The keyboard interrupts all processes of a terminal; this one is to be ended by its parent alone.
        with undisturbed():
            self._process.start()
        theirs.close()

    def hear(self) -> Outcome | Begun | Opened | Advanced | None:
        """The next message; ``None`` if the process has died."""
        try:
            message: Outcome | Begun | Opened | Advanced = self.pipe.recv()
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


def _serve(pipe: Connection, settings: Settings, threads: int, folder: Path) -> None:
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
            task: SceneTask = pipe.recv()
            pipe.send(Begun())
            pipe.send(do_scene(task, settings, _Told(pipe)))
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
