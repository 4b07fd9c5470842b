"""A night of many scenes in processes of its own, for the scripts of this folder."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import rasterio
import torch
from common import sha, write_scene

from geomoe import create_model
from geomoe.models.weights import Card, save
from products import write_safe, zipped

__all__ = ["Night", "files_of", "told"]


class Night:
    """A manifest, what becomes of it when it is left alone, and a folder for each try.

    Args:
        folder: for all of it.
        sides: of the scenes; 0 for one without a valid pixel.
        zips: of products, which come before the scenes.
    """

    def __init__(self, folder: Path, sides: tuple[int, ...], zips: int = 0) -> None:
        self.folder, self.out, self.tmp = folder, folder / "out", folder / "tmp"
        self.weights = _weights(folder / "tiny.safetensors")
        lines = []
        if zips:
            (folder / "safe").mkdir()
            product = zipped(write_safe(folder / "safe"), folder / "s.zip")
            lines += [f"{product},{self.out}/z{number}.tif,B04" for number in range(zips)]
        for number, side in enumerate(sides):
            scene = write_scene(folder / f"{number}.tif", side or 40, side or 40, seed=number, nodata=0)
            if not side:
                _blank(scene)
            lines.append(f"{scene},{self.out}/{number}.tif,")
        self.manifest = folder / "m.csv"
        self.manifest.write_text("\n".join(["src,dst,bands", *lines]))
        self.fresh()
        self.wrong = self.ended(self.start())
        self.whole = files_of(self.out)
        if self.wrong:
            raise SystemExit(f"a night that was left alone: {self.wrong}")

    def fresh(self) -> None:
        """Nothing is made yet."""
        for place in (self.out, self.tmp):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()

    def start(self, *options: str, report: str = "r.csv") -> subprocess.Popen[str]:
        """A night in a session of its own, or its dry run, which writes no report."""
        command = [sys.executable, "-m", "geomoe.cli.main", "upscale", "--manifest", str(self.manifest),
                   "--model", str(self.weights), "--scale", "2", "--tile", "8", "--device", "cpu",
                   *options]  # fmt: skip
        if "--dry-run" not in options:
            command += ["--report", str(self.folder / report)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.tmp), "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def ended(self, night: subprocess.Popen[str], statuses: tuple[int, ...] = (0,)) -> str:
        """Wait for the end of a night; what is wrong with it."""
        said = "".join(night.communicate(timeout=300))
        return told(
            (f"status {night.returncode}: {said[-300:]}", night.returncode in statuses),
            (f"traceback: {said[-300:]}", "Traceback" not in said),
            (f"unpacked: {os.listdir(self.tmp)}", not os.listdir(self.tmp)),
        )

    def is_whole(self) -> str:
        """What differs from a night that was left alone."""
        made = files_of(self.out)
        return told((f"{sorted({*made} ^ {*self.whole})} or bytes differ", made == self.whole))

    def statuses(self, report: str = "r.csv") -> list[str]:
        """Of the scenes, by the report."""
        with (self.folder / report).open(newline="") as file:
            return [row["status"] for row in csv.DictReader(file)]

    def processes(self, night: subprocess.Popen[str]) -> list[psutil.Process]:
        """Those that do the scenes."""
        with_torch = psutil.Process(night.pid).children()
        return [child for child in with_torch if "spawn_main" in " ".join(child.cmdline())]

    def until(self, night: subprocess.Popen[str], pattern: str, size: int = 0) -> bool:
        """Wait until a file is there of such a name and size; False if the night ends before."""
        while night.poll() is None:
            for path in self.folder.glob(pattern):
                try:
                    if path.stat().st_size >= size:
                        return True
                except FileNotFoundError:
                    continue
            time.sleep(0.002)
        return False


def _weights(path: Path) -> Path:
    torch.manual_seed(0)
    model = create_model("edsr", scale=2, width=4, blocks=1)
    save(path, model, Card("edsr", asdict(model.config), "unit", {}, "", {}, "", {}, "", "", ""))  # type: ignore[call-overload]
    return path


def _blank(scene: Path) -> None:
    with rasterio.open(scene, "r+") as file:
        file.write(np.zeros((file.count, file.height, file.width), file.dtypes[0]))


def files_of(out: Path) -> dict[str, str]:
    """Every file, and every folder of work, that is in a folder."""
    paths = (path for path in out.rglob("*") if path.is_file() or path.name.startswith("."))
    return {str(path.relative_to(out)): sha(path) if path.is_file() else "" for path in paths}


def told(*checks: tuple[str, bool]) -> str:
    """What is not as it should be, of things and whether they are."""
    return "; ".join(what for what, right in checks if not right)
