"""One arm with one seed: trained in a process of its own, scored once, resumed where it stopped."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.config import Arm, Benchmark
from geomoe.evaluation.benchmark.ensemble import joined
from geomoe.evaluation.benchmark.images import Images, Scored
from geomoe.evaluation.benchmark.result import Result, read_result, write_json
from geomoe.evaluation.hardware import hardware
from geomoe.files import write_text
from geomoe.lock import locked
from geomoe.models.device import pick_device
from geomoe.models.weights import LoadedModel, load, read_card, save
from geomoe.tasks.commit import commit

__all__ = ["Run", "plan_runs", "train"]


@dataclass(frozen=True)
class Run:
    """One arm with one seed, in a folder of its own.

    Attributes:
        arm: what is trained, or scored as it is.
        seed: with what.
        steps: for how long.
        folder: of ``fit.yaml``, checkpoint, weights, log and ``result.json``.
        images: it is trained and scored on.
        config: of ``geomoe fit``.
        hash: of all that decides the result: model, recipe, seed, images, degradation, protocol.
        ranks: the metric that is shown by step.
        members: of an ensemble, the runs whose answers are averaged; it is scored when all are finished.
    """

    arm: Arm
    seed: int
    steps: int
    folder: Path
    images: Images
    config: dict[str, Any]
    hash: str
    ranks: str
    members: tuple[Run, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it is an ensemble some of whose members are not finished."""
        return any(member.result is None for member in self.members)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def result(self) -> Result | None:
        """What it left behind if it is finished, with this configuration."""
        result = read_result(self.folder / "result.json")
        return result if result is not None and result.hash == self.hash else None

    @property
    def changed(self) -> bool:
        """Whether the folder holds a run of another configuration."""
        there = _state(self.folder)
        return there is not None and there["hash"] != self.hash

    @property
    def trained(self) -> int:
        """Steps after which training can go on."""
        last, checkpoint = self.folder / "last.safetensors", self.folder / "last.ckpt"
        if self.changed or not checkpoint.exists() or not last.exists():
            return 0
        return int(read_card(last).recipe["steps"])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from this run, also while a training goes on whose benchmark was killed.

        Raises:
            BusyError: another process works on it.
            GeomoeError: its folder cannot be made.
        """
        parent = self.folder.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GeomoeError(f"{parent} cannot be made: {error.strerror}; remove what is there") from error
        lock = parent / f".{self.folder.name}"
        with locked(lock, f"another process is at {self.name}", inherited=True):
            yield

    def carry_out(
        self, train: Callable[[Path, Path | None], None], device: str, say: Callable[[str], None]
    ) -> Result:
        """Train to the end, score the best weights, write the result.

        Args:
            train: given ``fit.yaml`` and the checkpoint to continue from.
            device: that scores.
            say: given a line when training has ended.
        """
        self._begin()
        if self.members:
            loaded = [load(str(member.folder / "best.safetensors")) for member in self.members]
            found = self.images.score(joined(self.arm.name, loaded), self.arm, device)
            trained = [result for member in self.members if (result := member.result) is not None]
            result = replace(
                self._result(found, trained[0].hardware),
                seconds=sum(one.seconds for one in trained),
                weights=" ".join(one.weights for one in trained),
            )
            write_json(self.folder / "result.json", result)
            return result
        if self.arm.features is not None:
            began = time.monotonic()
            found = self.images.fit_and_score(self.arm, self.seed)
            self._count(began)
            result = self._result(found, hardware("cpu"))
            write_json(self.folder / "result.json", result)
            return result
        if self.arm.weights is not None:
            given = load(self.arm.weights)
            save(self.folder / "best.safetensors", given.model, given.card)
        elif not self._complete():
            checkpoint = self.folder / "last.ckpt"
            if not checkpoint.exists():  # weights of an epoch that no checkpoint goes with
                for name in ("best", "last"):
                    (self.folder / f"{name}.safetensors").unlink(missing_ok=True)
            began = time.monotonic()
            try:
                train(self.folder / "fit.yaml", checkpoint if checkpoint.exists() else None)
            except BaseException:
                # A state that cannot be written must not take the place of what ended the training.
                with contextlib.suppress(GeomoeError):
                    self._count(began)
                raise
            self._count(began)
        say(f"{self.name}: scoring the best weights on the test images")
        result = self._score(device)
        write_json(self.folder / "result.json", result)
        return result

    def _count(self, began: float) -> None:
        state = _state(self.folder) or {"hash": self.hash, "seconds": 0.0}
        state["seconds"] += time.monotonic() - began
        write_json(self.folder / "state.json", state)

    def _begin(self) -> None:
        there = _state(self.folder)
        if there is not None and there["hash"] != self.hash:
            # Hours of training are not thrown away for a slip in a file.
            aside = self.folder.with_name(f"{self.folder.name}.before-{there['hash'][:8]}")
            number = 1
            while aside.exists():
                number += 1
                aside = self.folder.with_name(f"{self.folder.name}.before-{there['hash'][:8]}-{number}")
            self.folder.rename(aside)
            there = None
        self.folder.mkdir(parents=True, exist_ok=True)
        if there is None:
            write_json(self.folder / "state.json", {"hash": self.hash, "seconds": 0.0})
        write_text(self.folder / "fit.yaml", yaml.safe_dump(self.config, sort_keys=False))

    def _complete(self) -> bool:
        # The checkpoint is written after the weights of its epoch: with it there, the best are the best.
        last, checkpoint = self.folder / "last.safetensors", self.folder / "last.ckpt"
        written = self.trained >= self.steps
        return written and checkpoint.stat().st_mtime_ns >= last.stat().st_mtime_ns

    @property
    def _on_cpu(self) -> bool:
        return bool(self.config["trainer"].get("accelerator") == "cpu")

    def _curve(self, best: LoadedModel) -> list[tuple[int, float]]:
        return _curve(self.folder, int(best.card.recipe["steps_per_epoch"]), self.ranks)

    def _score(self, device: str) -> Result:
        best = load(str(self.folder / "best.safetensors"))
        found = self.images.score(best, self.arm, device)
        made = self._result(found, hardware("cpu" if self._on_cpu else pick_device("auto")))
        return replace(
            made,
            curve=self._curve(best) if self.steps else [],
            weights=best.hash,
            commit=best.card.commit,
            config={**self.config, "model_config": asdict(best.model.config)},  # type: ignore[call-overload]
        )

    def _result(self, found: Scored, hardware: str) -> Result:
        state = _state(self.folder)
        assert state is not None
        return Result(
            hash=self.hash,
            arm=self.arm.name,
            seed=self.seed,
            steps=self.steps,
            seconds=round(state["seconds"], 1),
            **vars(found),
            curve=[],
            weights="",
            commit=commit(),
            hardware=hardware,
            config=self.config,
        )


def plan_runs(benchmark: Benchmark, images: Images, out: Path) -> list[Run]:
    """Every arm with every seed, a seed through all arms before the next: a table can be had early.

    Raises:
        GeomoeError: a model that is not there, or options that it does not have.
    """
    whole = {part.name: arm for arm in benchmark.arms for part in benchmark.parts(arm)}
    parts = [part for arm in benchmark.arms for part in benchmark.parts(arm)]
    models = {arm.name: asdict(benchmark.model_config(arm)) for arm in parts if arm.features is None}
    runs = []
    for seed in benchmark.seeds:
        for arm in parts:
            if arm.weights is not None and seed != benchmark.seeds[0]:
                continue  # there is nothing that a seed could change
            folder = out / arm.name / f"seed{seed}"
            config = _fit_config(benchmark, arm, seed, images, folder)
            decides = {k: v for k, v in config.items() if k not in ("checkpoint", "trainer", "data")}
            if arm.features is None:
                decides |= {"trainer": benchmark.recipe_of(arm)["trainer"], "model_config": models[arm.name]}
            options = config["data"].get("init_args", config["data"])
            decides |= {"data": {k: v for k, v in options.items() if k != "root"}}
            if arm.weights is not None:
                decides["weights"] = load(arm.weights).hash
            text = json.dumps([decides, images.digest], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()
            runs.append(Run(arm, seed, benchmark.steps(arm), folder, images, config, digest, benchmark.ranks))
            if arm.member and arm.member == whole[arm.name].members:
                runs.append(_ensemble(benchmark, whole[arm.name], runs[-arm.member :], out))
    return runs


def _ensemble(benchmark: Benchmark, arm: Arm, members: list[Run], out: Path) -> Run:
    """The run that scores what its members say together."""
    first = members[0]
    digest = hashlib.sha256(" ".join(member.hash for member in members).encode()).hexdigest()
    folder = out / arm.name / f"seed{first.seed}"
    config = {**first.config, "members": len(members)}
    return Run(
        arm, first.seed, benchmark.steps(arm), folder, first.images, config, digest, benchmark.ranks,
        tuple(members),
    )  # fmt: skip


def _fit_config(benchmark: Benchmark, arm: Arm, seed: int, images: Images, folder: Path) -> dict[str, Any]:
    recipe = benchmark.recipe_of(arm)
    data = {**recipe.get("data", {}), **images.fit_options(arm, seed)}
    model: dict[str, Any] = {"model": arm.model, "options": arm.options}
    if arm.features is not None:
        return {"seed": seed, "model": {**model, "features": arm.features}, "data": data}
    log = {"save_dir": str(folder), "name": "log"}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": log}
    model = {**recipe.get("model", {}), **model}
    if benchmark.scale is not None:
        model["protocol"] = benchmark.protocol
    else:
        model, data = (
            {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": options}
            for kind, options in ((benchmark.of.task, model), (benchmark.of.data, data))
        )
    # The seed decides initial weights and the order of patches alike: the same for every arm, but
    # for members of an ensemble, which have to differ.
    return {
        "seed_everything": seed + 1000 * arm.member,
        **recipe,
        "trainer": {**recipe.get("trainer", {}), "default_root_dir": str(folder), "logger": logger},
        "model": model,
        "data": data,
        "checkpoint": {"dirpath": str(folder)},
    }


def train(config: Path, checkpoint: Path | None) -> None:
    """``geomoe fit`` in a process of its own, whose memory and threads are its own too.

    Raises:
        GeomoeError: it failed.
        KeyboardInterrupt: it was interrupted.
    """
    # Lightning warns of a folder that holds something, which here it does on purpose.
    command = [sys.executable, "-W", "ignore", "-m", "geomoe.cli.main", "fit", "--config", str(config)]
    command += [] if checkpoint is None else ["--ckpt_path", str(checkpoint)]
    # The lock of the run is passed on: it holds for as long as either process is there.
    with subprocess.Popen(command, close_fds=False) as process:
        try:
            status = process.wait()
        except BaseException:
            # Ctrl-C reached the training too; of what ends this process alone it has to be told.
            process.terminate()
            process.wait()
            raise
    if status in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    if status:
        raise GeomoeError(f"training ended with status {status}; the reason is above")


def _state(folder: Path) -> dict[str, Any] | None:
    """Hash and seconds of training of the run that the folder holds, None where it holds none."""
    try:
        found = json.loads((folder / "state.json").read_text())
        return {"hash": str(found["hash"]), "seconds": float(found["seconds"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GeomoeError(
            f"{folder / 'state.json'} is damaged; remove {folder} to train that run again"
        ) from error


def _curve(folder: Path, steps_per_epoch: int, metric: str) -> list[tuple[int, float]]:
    """A metric in validation by step; of steps that an interrupted run went over again the later value."""
    found: dict[int, list[float]] = {}
    logs = sorted(folder.glob("log/version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:]))
    for log in logs:
        mine: dict[int, list[float]] = {}
        with log.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get(f"val/{metric}"):
                    # By epochs: the steps of this log are off by one after a resumption.
                    step = (int(row["epoch"]) + 1) * steps_per_epoch
                    mine.setdefault(step, []).append(float(row[f"val/{metric}"]))
        found |= mine
    return [(step, fmean(values)) for step, values in sorted(found.items())]
