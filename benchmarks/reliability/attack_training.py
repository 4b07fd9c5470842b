"""Training under attack: what it wrote stays whole, and what is wrong is said in one line.

    python benchmarks/reliability/attack_training.py [--tries 10] [--kinds steps,flips] [--seed 0] [--json]

``steps``: a training ends by ``_exit`` before each call by which it changes a folder after its first epoch,
and is begun again; ``kills``: by SIGKILL at random moments. Both must end with the weights of one left alone.
``full``: a disk that fills, at many points. ``flips``: single bits of ``last.ckpt``, refused unless what is
read is the same. ``damaged``: files that are given for a checkpoint. ``numbers``: NaN and infinity in losses,
gradients and weights. ``together``: two and three trainings in one folder at once. ``images``: bombs, wrong
kinds, damaged files. ``configurations``: code, endless YAML. ``options``: numbers that cannot be. ``cards``:
odd entries of the weights that training starts from.

A try fails if a file is lost or damaged, weights hold NaN, a status is wrong, more than one line of error or
a traceback is printed, or anything hidden is left behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack import Kind, Tries, attack
from full_disk import limited, may_mount, mounted
from hostile_trainings import GIVEN
from nights import told
from trainings import Trainings, ended

from geomoe import GeomoeError
from geomoe.models import load
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.task import Task

STEPS = ("replace", "unlink", "mkdir", "rmdir", "open", "fsync")


# Trainings that are cut


def steps(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """Cut before each change of a folder; what is left must do to end as if nothing had happened."""
    trainings = Trainings(folder)
    for step in range(0, 10_000, args.every):
        status = ended(trainings.start(before=lambda step=step: _exit_at(step)))
        if status == 0:  # it has fewer steps
            return
        yield _ends_well(trainings, f"step {step}: status {status}; " if status != 9 else "")


def kills(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """Killed while it trains, validates or writes."""
    trainings = Trainings(folder)
    began = time.monotonic()
    ended(trainings.start())
    usual = time.monotonic() - began
    for _ in range(args.tries):
        shutil.rmtree(trainings.out, ignore_errors=True)
        child = trainings.start()
        time.sleep(float(rng.uniform(0.3, 1)) * usual)
        os.kill(child, signal.SIGKILL)
        ended(child)
        yield _ends_well(trainings, "")


def _ends_well(trainings: Trainings, wrong: str) -> str:
    """Begin again where there is a checkpoint, else anew, and compare; then nothing is left."""
    wrong += trainings.kept()
    last = trainings.out / "last.ckpt"
    if not last.exists():
        shutil.rmtree(trainings.out, ignore_errors=True)
    if not (last.exists() and read_checkpoint(last)["global_step"] == trainings.steps):
        status = ended(trainings.start(None, *([f"--ckpt_path={last}"] if last.exists() else [])))
        wrong += told((f"begun again: status {status}: {trainings.text[-300:]}", status == 0))
        hidden = [path.name for path in trainings.out.glob(".*")]
        wrong += told((f"left {hidden}", not hidden))
    wrong += told(("other weights", load(str(trainings.out / "last.safetensors")).hash == trainings.hash))
    shutil.rmtree(trainings.out)
    return wrong


def _exit_at(step: int) -> None:
    """End this process before the n-th call that changes a folder, from the first weights on."""
    count = -1

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **options: object) -> object:
            nonlocal count
            count += count >= 0 or ".safetensors" in str(given[0])
            if count > step:
                os._exit(9)
            return real(*given, **options)

        return call

    for name in STEPS:
        setattr(os, name, counting(getattr(os, name)))


def full(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """The disk is full at some point: one line, and the checkpoint before it is whole."""
    trainings = Trainings(folder)
    by_mount = may_mount(folder)
    need = sum(path.stat().st_size for path in trainings.checkpoint.parent.rglob("*") if path.is_file())
    need = 2 * need if by_mount else trainings.checkpoint.stat().st_size
    for point in range(args.tries):
        trainings.out.mkdir()
        with (mounted if by_mount else limited)(trainings.out, int(need * point / args.tries)) as setup:
            status = ended(trainings.start(trainings.out, before=setup))
            wrong = "" if status == 0 else trainings.refused(status, (1,))
            wrong += trainings.kept()
            last = trainings.out / "last.ckpt"
            if last.exists():
                read_checkpoint(last)
            left = [path.name for path in trainings.out.glob(".*")]
            yield wrong + told((f"left {left}", not left))
        shutil.rmtree(trainings.out)


def together(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """Several trainings in one folder: one of them is the training, the others say so."""
    trainings = Trainings(folder)
    for number in range(args.tries):
        names = [f"said{which}" for which in range(2 + number % 2)]
        children = []
        for name in names:
            children.append(trainings.start(name=name))
            time.sleep(float(rng.uniform(0, 0.3)))
        statuses = [ended(child) for child in children]
        others = [i for i, status in enumerate(statuses) if status]
        yield told(
            (f"statuses {statuses}", len(others) == len(names) - 1),
            *((text, not text) for i in others if (text := trainings.refused(statuses[i], (1,), names[i]))),
            ("other weights", load(str(trainings.out / "last.safetensors")).hash == trainings.hash),
            (text := trainings.kept(), not text),
        )
        shutil.rmtree(trainings.out)


# Checkpoints


def flips(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """Fifty times as many as of the others: a half anywhere, a half in the directory of the archive."""
    trainings = Trainings(folder)
    whole, path = trainings.checkpoint.read_bytes(), folder / "flipped.ckpt"
    with zipfile.ZipFile(trainings.checkpoint) as archive:
        directory = archive.start_dir
    sound = read_checkpoint(trainings.checkpoint)
    for number in range(50 * args.tries):
        place = int(rng.integers(directory if number % 2 else 0, len(whole)))
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            yield told((f"bit of byte {place}", equal(read_checkpoint(path), sound)))
        except GeomoeError as error:
            yield told((str(error), len(str(error).splitlines()) == 1))


def equal(a: Any, b: Any) -> bool:
    """Whether two checkpoints hold the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def damaged(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """Cut, emptied, of other things, and of parts that do not go together."""
    trainings = Trainings(folder, 4)
    whole, path = trainings.checkpoint.read_bytes(), folder / "damaged.ckpt"
    found = read_checkpoint(trainings.checkpoint)
    cases: list[bytes | dict[str, Any]] = [
        b"",
        b"\0" * 999,
        b"text\n" * 99,
        whole[:-1],
        whole[1:],
        whole[::-1],
    ]
    cases += [whole[: int(rng.integers(len(whole)))] for _ in range(args.tries)]
    for _ in range(args.tries):
        place = int(rng.integers(len(whole) - 4096))
        cases.append(whole[:place] + bytes(4096) + whole[place + 4096 :])
    for part in found:
        cases.append({key: value for key, value in found.items() if key != part})
        cases += [{**found, part: odd} for odd in (None, 3, "odd", [], {}, [{}], {"odd": {}})]
    for case in cases[:: args.every]:
        path.write_bytes(case) if isinstance(case, bytes) else torch.save(case, path)
        status = ended(trainings.start(None, f"--ckpt_path={path}", "--trainer.max_steps=6"))
        # What is not needed may be missing.
        wrong = trainings.refused(status) if status else ""
        yield wrong + (trainings.kept() if trainings.out.exists() else "")
        shutil.rmtree(trainings.out, ignore_errors=True)


def numbers(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """No number in a loss, a gradient or a weight, at each step."""
    trainings = Trainings(folder)

    def spoil(what: str, at: int, value: float) -> None:
        step = Task.training_step

        def loss(self: Task, batch: Any, index: int) -> torch.Tensor:
            found = step(self, batch, index)
            return found * value if self.global_step == at else found

        def gradient(self: Task, _: object) -> None:
            if self.global_step == at:
                for parameter in self.model.parameters():
                    if parameter.grad is not None:
                        (parameter.grad if what == "gradient" else parameter.data).fill_(value)

        if what == "loss":
            Task.training_step = loss  # type: ignore[method-assign]
        else:
            Task.on_before_optimizer_step = gradient  # type: ignore[method-assign]

    cases = [(w, at, v) for w in ("loss", "gradient", "weight") for at in range(6) for v in (np.nan, np.inf)]
    for case in cases[:: args.every]:
        status = ended(
            trainings.start(None, "--trainer.gradient_clip_val=null", before=lambda case=case: spoil(*case))
        )
        yield trainings.refused(status, (1,)) + trainings.kept()
        shutil.rmtree(trainings.out, ignore_errors=True)


KINDS: dict[str, Kind] = {
    "steps": steps, "kills": kills, "full": full, "together": together, "flips": flips, "damaged": damaged,
    "numbers": numbers, **GIVEN,
}  # fmt: skip


if __name__ == "__main__":
    attack(
        KINDS, __doc__, tries="of each kind that has no list of its own",
        every="which steps and which of a list are tried",
    )  # fmt: skip
