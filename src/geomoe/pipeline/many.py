"""Many scenes: a list of jobs, done by a few processes, with a report of what became of each."""

from __future__ import annotations

import csv
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch

from geomoe.errors import GeomoeError
from geomoe.models import LoadedModel, load
from geomoe.pipeline.job import is_made
from geomoe.pipeline.memory import available_memory
from geomoe.pipeline.runner import pick_device
from geomoe.pipeline.upscale import upscale
from geomoe.raster.lock import BusyError

__all__ = ["Outcome", "SceneTask", "Settings", "read_manifest", "upscale_many", "write_report"]


@dataclass(frozen=True)
class SceneTask:
    """One line of a manifest.

    Attributes:
        src, dst: the scene, and where the result goes.
        experts: where the map of experts goes, if anywhere.
        bands: names or 1-based numbers with commas; all if ``None``.
    """

    src: str
    dst: str
    experts: str | None = None
    bands: str | None = None


@dataclass(frozen=True)
class Settings:
    """What is the same for all scenes; see `upscale`. ``memory`` is for all processes together."""

    model: str = "mfg_hmoe_light"
    scale: int = 4
    tile: int | None = None
    device: str = "auto"
    memory: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a scene.

    Attributes:
        task: the line of the manifest.
        status: ``done``; ``there``: made before from this scene with these settings; ``busy``: another
            process is at it; ``failed``.
        seconds: of the last attempt.
        resumed: tiles that an earlier process had done.
        attempts: how often it was tried.
        message: the error, in one line.
    """

    task: SceneTask
    status: Literal["done", "there", "busy", "failed"]
    seconds: float = 0.0
    resumed: int = 0
    attempts: int = 1
    message: str = ""


def read_manifest(path: str | os.PathLike[str]) -> list[SceneTask]:
    """The scenes of a CSV file with a header: ``src,dst`` and, where wanted, ``experts`` and ``bands``.

    Relative paths are relative to the folder of the file.

    Raises:
        GeomoeError: no such file, another header, a line without ``src`` or ``dst``, or two with one target.
    """
    path = Path(path)
    known = [field.name for field in fields(SceneTask)]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            if not {"src", "dst"} <= {*header} <= {*known}:
                raise GeomoeError(
                    f"{path} has columns {', '.join(header)}; expected src, dst[, experts][, bands]"
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise GeomoeError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise GeomoeError(f"{path} is not a CSV file: {error}; expected a header src,dst") from error
    tasks: list[SceneTask] = []
    targets: dict[str, int] = {}
    for line, row in rows:
        given = {
            name: value.strip() for name, value in row.items() if isinstance(value, str) and value.strip()
        }
        if None in row or not {"src", "dst"} <= {*given}:
            raise GeomoeError(
                f"{path}, line {line}: expected a value for src and dst, and none beyond the header"
            )
        for name in ("src", "dst", "experts"):
            if name in given and "://" not in given[name] and not given[name].startswith("/vsi"):
                given[name] = str(path.parent / given[name])
        if any("\0" in value for value in given.values()):
            raise GeomoeError(f"{path}, line {line}: holds a byte of zero; expected text")
        for target in (given["dst"], given.get("experts")):
            if target is not None and targets.setdefault(os.path.realpath(target), line) != line:
                raise GeomoeError(
                    f"{path}, line {line}: {target} is the target of line {targets[os.path.realpath(target)]}"
                )
        tasks.append(SceneTask(**given))
    if not tasks:
        raise GeomoeError(f"{path} names no scene; expected lines src,dst below the header")
    return tasks


def write_report(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a CSV file with a line for every scene.

    Raises:
        GeomoeError: if it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["src", "dst", "status", "attempts", "seconds", "tiles_resumed", "message"])
            for o in outcomes:
                writer.writerow(
                    [o.task.src, o.task.dst, o.status, o.attempts, f"{o.seconds:.1f}", o.resumed, o.message]
                )
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise GeomoeError(f"{path} cannot be written: {error.strerror}; give another --report") from error


def upscale_many(
    tasks: Sequence[SceneTask],
    settings: Settings,
    *,
    processes: int | None = None,
    retries: int = 1,
    heard: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Super-resolve many scenes; none of them stands in the way of another.

    A scene that was made before from the same scene with the same settings is left as it is, one that was
    begun is gone on with, and one that another process is at (perhaps of another machine, where the disk is
    shared and locks work over it) is left to that. A process that dies, for want of memory or otherwise, is
    replaced, and its scene tried again.

    Args:
        tasks: from :func:`read_manifest`, or made.
        settings: for all of them.
        processes: how many; one for each accelerator or for every four processors if ``None``.
        retries: how often a scene is tried again, after the others.
        heard: is told what became of each scene, as it ends.

    Returns:
        In the order of the tasks.

    Raises:
        GeomoeError: weights or a device that are not there.
    """
    load(settings.model, settings.scale)
    devices = _devices(settings.device)
    count = processes or (len(devices) if devices[0] != "cpu" else max(1, torch.get_num_threads() // 4))
    count = max(1, min(count, len(tasks)))
    threads = max(1, torch.get_num_threads() // count)
    budget = (available_memory() // 2 if settings.memory is None else settings.memory) // count
    found: dict[int, Outcome] = {}
    waiting = deque((number, 1) for number in range(len(tasks)))
    slots = [
        _Slot(replace(settings, device=devices[i % len(devices)], memory=budget), threads)
        for i in range(count)
    ]
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


def _devices(device: str) -> list[str]:
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(pick_device(device))]


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
            initargs=(self._settings, self._threads),
        )

    def submit(self, task: SceneTask) -> Future[Outcome]:
        return self._pool.submit(_do, task)

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


_here: tuple[Settings, LoadedModel] | None = None
"""Of a process of the pool."""


def _prepare(settings: Settings, threads: int) -> None:
    global _here
    torch.set_num_threads(threads)
    _here = settings, load(settings.model, settings.scale)


def _do(task: SceneTask) -> Outcome:
    assert _here is not None
    settings, model = _here
    given = {**asdict(settings), "model": model}
    began = time.monotonic()
    try:
        whole = task.experts is None or Path(task.experts).exists()
        if whole and not settings.overwrite and is_made(task.src, task.dst, model, task.bands, settings.tile):
            return Outcome(task, "there", time.monotonic() - began)
        report = upscale(task.src, task.dst, experts=task.experts, bands=task.bands, **given)
        return Outcome(task, "done", time.monotonic() - began, report.resumed)
    except BusyError as error:
        return Outcome(task, "busy", time.monotonic() - began, message=str(error))
    except GeomoeError as error:
        return Outcome(task, "failed", time.monotonic() - began, message=" ".join(str(error).split()))
    except Exception as error:  # a mistake of ours must not end the night
        return Outcome(
            task,
            "failed",
            time.monotonic() - began,
            message=f"{type(error).__name__}: {' '.join(str(error).split())}",
        )
