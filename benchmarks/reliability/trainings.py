"""Trainings in processes of their own, for the scripts of this folder."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import TINY, fork
from PIL import Image

import geomoe.tasks.fit  # so that a child has imported all of it
from geomoe.cli.main import main as command_line
from geomoe.models import load

__all__ = ["Trainings", "ended"]

SECONDS = 120
assert geomoe.tasks.fit


def ended(child: int) -> int:
    """The status of a process; one that hangs is killed."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return 99


class Trainings:
    """Images, a folder for what is trained, and what comes of a training that is left alone.

    Args:
        folder: for all of it.
        steps: of a training, in epochs of two.
    """

    def __init__(self, folder: Path, steps: int = 6) -> None:
        torch.set_num_threads(1)
        self.images, self.out = folder / "images", folder / "out"
        self.said, self.steps = folder / "said", steps
        self.images.mkdir()
        rng = np.random.default_rng(0)
        for number in range(4):
            noise = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            noise.resize((40, 40), Image.Resampling.BICUBIC).save(self.images / f"{number}.png")
        if ended(self.start(folder / "whole")):
            raise SystemExit(f"a training that was left alone: {self.text}")
        self.checkpoint = folder / "whole" / "last.ckpt"
        self.weights = folder / "whole" / "last.safetensors"
        self.hash = load(str(self.weights)).hash

    def start(
        self,
        out: Path | None = None,
        *more: str,
        before: Callable[[], object] = lambda: None,
        name: str = "said",
    ) -> int:
        """``geomoe fit`` in a child; ``before`` is called there first."""
        out = self.out if out is None else out
        options = {k: v if isinstance(v, int) else list(v) for k, v in TINY.items()}
        args = [
            "fit", f"--data.root={self.images}", "--data.scale=2", "--data.patch_size=8",
            "--data.batch_size=2", "--data.steps_per_epoch=2", f"--trainer.max_steps={self.steps}",
            f"--model.options={options}", f"--checkpoint.dirpath={out}", "--trainer.accelerator=cpu",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}", *more,
        ]  # fmt: skip
        return self.command(args, before, name)

    def command(
        self, args: list[str], before: Callable[[], object] = lambda: None, name: str = "said"
    ) -> int:
        """Any command in a child, which says what it has to say to a file."""

        def work() -> None:
            handle = os.open(self.said.with_name(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(handle, 2)
            sys.stderr = os.fdopen(os.dup(handle), "w", buffering=1)
            before()
            try:
                command_line(args)
            except SystemExit as stop:
                os._exit(int(stop.code or 0))

        return fork(work)

    @property
    def text(self) -> str:
        """What the last process said."""
        return self.said.read_text(errors="replace").strip()

    def refused(self, status: int, statuses: tuple[int, ...] = (1, 2), name: str = "said") -> str:
        """What is wrong with a process that should have ended with our one line; nothing if it is empty."""
        lines = self.said.with_name(name).read_text(errors="replace").strip().splitlines()
        usual = re.compile(r"step |geomoe: (?!error: )")
        errors = [line for line in lines if not usual.match(line)]
        right = status in statuses and len(errors) == 1 and errors[0].startswith("geomoe: error: ")
        return "" if right else f"status {status}: {' | '.join(errors)[-300:]}"

    def kept(self, out: Path | None = None) -> str:
        """What is wrong with what a training left: each file is whole or not there."""
        out = self.out if out is None else out
        for path in out.glob("*.safetensors"):
            model = load(str(path)).model
            if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
                return f"{path.name} holds NaN"
        hidden = [path.name for path in out.glob(".*") if path.name != ".fit" and ".part" not in path.name]
        return f"left {hidden}" if hidden else ""
