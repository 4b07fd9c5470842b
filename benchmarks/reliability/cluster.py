"""Scenes by a Dask cluster that loses a worker and its scheduler: is each done, once, with the same bytes?

    python benchmarks/reliability/cluster.py [--scenes 12] [--size 400] [--json]

A scheduler and two workers are processes of this machine. When a part of the scenes is done, a worker that is
at one gets SIGKILL; later the scheduler gets it, with its workers, and all are started anew at the same
address. What is compared is the SHA-256 of each file with that of one made without a cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from common import sha, write_scene

from geomoe import create_model
from geomoe.models.weights import Card, save
from geomoe.pipeline import Outcome, Request, predict_many, upscale


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = run(Path(name), args.scenes, args.size)
    print(json.dumps(found) if args.json else found)
    if not found["scenes"] == found["done"] == found["told"] == found["equal"] or found["left_over"]:
        raise SystemExit(1)


def run(folder: Path, scenes: int, size: int) -> dict[str, int]:
    """Do the scenes while things are killed."""
    weights = folder / "tiny.safetensors"
    torch.manual_seed(0)
    model = create_model("edsr", scale=2, width=4, blocks=1)
    card = Card("edsr", asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "")  # type: ignore[call-overload]
    save(weights, model, replace(card))
    (folder / "out").mkdir()
    tasks = []
    for number in range(scenes):
        src = write_scene(folder / f"{number}.tif", size, size, seed=number)
        dst = str(folder / "out" / f"{number}.tif")
        tasks.append(Request(str(src), dst, str(weights), scale=2, tile=16, device="cpu"))
    told: list[Outcome] = []
    ended: list[Outcome] = []
    port = free_port()
    cluster = Cluster(port, folder)
    thread = threading.Thread(
        target=lambda: ended.extend(
            predict_many(tasks, scheduler=f"tcp://127.0.0.1:{port}", retries=3, heard=told.append)
        )
    )
    try:
        thread.start()
        until(thread, lambda: len(told) >= scenes // 4 and bool(begun(folder)))
        cluster.kill_a_worker()
        until(thread, lambda: len(told) >= scenes // 2 and bool(begun(folder)))
        cluster.stop()
        cluster = Cluster(port, folder)
        thread.join()
    finally:
        cluster.stop()
    equal = 0
    for task in tasks:
        alone = folder / "alone.tif"
        upscale(task.src, alone, model=str(weights), scale=2, tile=16, overwrite=True)
        equal += sha(alone) == sha(Path(task.dst))
    return {
        "scenes": scenes,
        "done": sum(outcome.status in ("done", "there") for outcome in ended),
        "told": len(told),
        "found_done": sum(outcome.status == "there" for outcome in ended),
        "tiles_gone_on_with": sum(outcome.resumed for outcome in ended),
        "equal": equal,
        # Beside each scene its item, and one of the model.
        "left_over": len(list((folder / "out").iterdir())) - 2 * scenes - 1,
    }


def begun(folder: Path) -> list[Path]:
    """Journals of scenes that are being done."""
    return list((folder / "out").glob(".*.geomoe/journal"))


def until(thread: threading.Thread, done: object) -> None:
    """Wait until something is so, or the thread has ended."""
    while thread.is_alive() and not done():  # type: ignore[operator]
        time.sleep(0.01)


def free_port() -> int:
    """Of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Cluster:
    """A scheduler and two workers, each with one thread and no nanny to start it again."""

    def __init__(self, port: int, folder: Path) -> None:
        self._log = (folder / "log").open("a")
        self._address, self._folder = f"tcp://127.0.0.1:{port}", folder
        self._scheduler = self._start("distributed.cli.dask_scheduler", "--port", str(port), "--no-dashboard")
        self._workers = [self._worker(), self._worker()]

    def _start(self, module: str, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *args], stdout=self._log, stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=self._folder,
        )  # fmt: skip

    def _worker(self) -> subprocess.Popen[bytes]:
        return self._start(
            "distributed.cli.dask_worker", self._address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--death-timeout", "30",
        )  # fmt: skip

    def kill_a_worker(self) -> None:
        """With SIGKILL; another one comes."""
        self._workers[0].send_signal(signal.SIGKILL)
        self._workers[0].wait()
        self._workers[0] = self._worker()

    def stop(self) -> None:
        """All of them, with SIGKILL."""
        for process in (self._scheduler, *self._workers):
            process.kill()
            process.wait()
        self._log.close()


if __name__ == "__main__":
    main()
