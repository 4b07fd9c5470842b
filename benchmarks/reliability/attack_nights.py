"""Nights under attack: what is cut, killed, hung, begun twice or without locks ends well.

    python benchmarks/reliability/attack_nights.py [--tries 10] [--kinds commits,locks] [--seed 0] [--json]

``commits``: a job whose files go to three folders, over old files and over none, ends by ``_exit`` before
each call by which it changes a folder while it finishes, and is begun again. ``locks``: the same job on a
file system that says it has no locks (``flock`` fails), killed at random tiles, and two processes at once.
The others are nights of ``geomoe upscale --manifest`` in processes of their own, ``--tries`` of each:
``hangs`` (a process is stopped in the middle of a scene, or before its first tile), ``twice`` and ``thrice``
(one manifest at once), ``interrupts`` (Ctrl-C, SIGTERM, SIGHUP and SIGKILL of zipped products, at random
moments), ``workers`` (a process is killed) and ``empties`` (scenes without a valid pixel among others).

A try fails if a scene is missing or has other bytes than it has alone, if a status or a line of the report is
wrong, if a traceback is printed, or if anything is left over: work, locks, unpacked files.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from attack import Kind, Tries, attack
from common import fork, tiny, write_scene
from nights import Night, files_of, told

from geomoe.pipeline import upscale

STEPS = ("replace", "rename", "unlink", "remove", "link", "mkdir", "rmdir", "open", "fsync")
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


# Jobs that are cut


def commits(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """Cut before each step of finishing, over nothing and over old files."""
    src = write_scene(folder / "src.tif", 90, 83, nodata=0)
    whole = _job(src, folder / "whole")
    for old in (False, True):
        for step in range(0, 10_000, args.every):
            out = folder / "cut"
            if old:
                shutil.copytree(folder / "whole", out)
                for path in out.glob("*/*.tif"):
                    path.write_bytes(b"old")
            status = _wait(_begin(src, out, before=lambda step=step: _exit_at(step), overwrite=old))
            if status == 0:  # it has fewer steps
                shutil.rmtree(out)
                break
            again = _wait(_begin(src, out, overwrite=old))
            made = files_of(out)
            yield told(
                ("status", status == 9),
                (f"begun again after step {step}: status {again}", again == 0),
                (f"step {step}: {sorted({*made} ^ {*whole})}", made == whole),
            )
            shutil.rmtree(out)


def locks(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """On a file system without locks: killed, and two at once."""
    src = write_scene(folder / "src.tif", 90, 83, nodata=0)
    whole = _job(src, folder / "whole")
    for number in range(args.tries):
        without = NO_LOCKS[number % 3]
        out = folder / "out"
        first = _begin(src, out, before=lambda w=without: _without_locks(w))
        if number % 2:
            time.sleep(float(rng.uniform(0, 0.3)))
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)
            statuses = {_wait(_begin(src, out, before=lambda w=without: _without_locks(w)))} - {1}
        else:
            second = _begin(src, out, before=lambda w=without: _without_locks(w))
            statuses = {_wait(first), _wait(second)} - {1}  # one may have been told that it is busy
        if not statuses and (out / "image" / "out.tif").exists():
            statuses = {0}  # the first had ended before it was killed
        made = files_of(out)
        yield told((f"statuses {statuses}", statuses == {0}), ("bytes", made == whole))
        shutil.rmtree(out)


def _job(src: Path, out: Path) -> dict[str, str]:
    if _wait(_begin(src, out)):
        raise SystemExit("a job that was left alone failed")
    return files_of(out)


def _begin(
    src: Path, out: Path, before: Callable[[], None] = lambda: None, *, overwrite: bool = False
) -> int:
    """A job of three outputs in three folders, in a child; ``before`` is called there first."""

    def work() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        torch.set_num_threads(1)
        for name in ("image", "experts", "consistency"):
            (out / name).mkdir(parents=True, exist_ok=True)
        before()
        upscale(
            src, out / "image" / "out.tif", model=tiny(), scale=2, experts=out / "experts" / "e.tif",
            consistency=out / "consistency" / "c.tif", overwrite=overwrite,
        )  # fmt: skip

    return fork(work)


def _exit_at(step: int) -> None:
    """End this process before the n-th call that changes a folder, from the first finished file on."""
    count = -1

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **options: object) -> object:
            nonlocal count
            count += count >= 0 or ".part" in str(given[0]) or "part." in str(given[0])
            if count > step:
                os._exit(9)
            return real(*given, **options)

        return call

    for name in STEPS:
        setattr(os, name, counting(getattr(os, name)))


def _without_locks(code: int) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    fcntl.flock = flock


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Nights


def hangs(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """A process is stopped, and hears nothing any more: the others are done, and the night ends."""
    night = Night(folder, (400, 40, 40))
    for number in range(args.tries):
        night.fresh()
        run = night.start("--scene-timeout", "5s", "--processes", "1")
        tiles = number % 2  # of the first scene that are done
        if tiles:
            night.until(run, "out/.0.tif.geomoe/journal", int(rng.integers(30, 3000)))
        else:
            night.until(run, "out/.0.tif.geomoe/lock")
        for process in night.processes(run):
            process.suspend()
        wrong = night.ended(run, statuses=(1,))
        yield told(
            (wrong, not wrong),
            (f"report {night.statuses()}", night.statuses() == ["failed", "done", "done"]),
        ) or "; ".join(filter(None, [night.ended(night.start()), night.is_whole()]))


def several(count: int) -> Kind:
    """One manifest, given to several nights at once."""

    def kind(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
        night = Night(folder, (120, 40, 200, 90), zips=1)
        for number in range(args.tries):
            night.fresh()
            runs = []
            for which in range(count):
                options = ("--overwrite",) if number % 3 == 2 else ()
                runs.append(night.start("--processes", str(1 + number % 2), *options, report=f"{which}.csv"))
                time.sleep(float(rng.uniform(0, 1)))
            # What the others unpack is theirs until all have ended.
            said = ["".join(run.communicate(timeout=300)) for run in runs]
            reports = [night.statuses(f"{which}.csv") for which in range(count)]
            yield "; ".join(
                filter(None, [
                    *(text[-300:] for run, text in zip(runs, said, strict=True) if run.returncode),
                    *(str(report) for report in reports if {*report} - {"done", "there"}),
                    night.is_whole(), told(("unpacked", not os.listdir(night.tmp))),
                ])
            )  # fmt: skip

    return kind


def interrupts(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """All processes of a night of zips get a signal at a random moment; begun again, it ends well."""
    night = Night(folder, (60,), zips=6)
    for number in range(args.tries):
        night.fresh()
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
        which = signals[number % len(signals)]
        run = night.start("--processes", "2")
        if number % 4:
            night.until(run, "tmp/*/*/*/*.jp2")
        time.sleep(float(rng.uniform(0, 0.6)))
        if run.poll() is None:
            if which == signal.SIGKILL:  # of the parent alone: its children must see to themselves
                run.kill()
                _gone(night.tmp)
            else:
                os.killpg(run.pid, which)
        wrong = night.ended(run, statuses=(0, 128 + which, -which))
        yield "; ".join(filter(None, [wrong, night.ended(night.start()), night.is_whole()]))


def _gone(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while os.listdir(folder) and time.monotonic() < deadline:
        time.sleep(0.01)


def workers(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """A process that does scenes is killed, or politely ended; another takes its place."""
    night = Night(folder, (200, 60), zips=3)
    for number in range(args.tries):
        night.fresh()
        run = night.start("--processes", "2", "--retries", "2")
        night.until(run, "out/.*.geomoe/journal", int(rng.integers(0, 800)))
        for process in night.processes(run)[: 1 + number % 2]:
            process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)[number % 3])
        yield "; ".join(filter(None, [night.ended(run), night.is_whole()]))


def empties(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """Scenes without a valid pixel are no failure, whatever else is there; the dry run foresees them."""
    for number in range(args.tries):
        place = folder / str(number)
        place.mkdir()
        sides = tuple(0 if number >> bit & 1 else 40 for bit in range(4))
        night = Night(place, sides)  # ends with status 0
        expected = ["done" if side else "empty" for side in sides]
        shutil.rmtree(night.out)
        night.out.mkdir()
        dry = night.start("--dry-run")
        said = dry.communicate(timeout=300)[0]
        yield told(
            (f"report {night.statuses()}", night.statuses() == expected),
            (f"dry run: status {dry.returncode}, {said}", dry.returncode == 0),
            (said, f"{sides.count(0)} empty, 0 refused" in said),
        )


KINDS: dict[str, Kind] = {
    "commits": commits, "locks": locks, "hangs": hangs, "twice": several(2), "thrice": several(3),
    "interrupts": interrupts, "workers": workers, "empties": empties,
}  # fmt: skip


if __name__ == "__main__":
    attack(KINDS, __doc__, tries="of each kind of night", every="which steps of a commit are cut")
