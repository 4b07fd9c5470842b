"""Writes weights with a card while training: no checkpoint ever has to be unpickled to get them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from geomoe.errors import GeomoeError, expect
from geomoe.lock import locked
from geomoe.metrics.measures import measure
from geomoe.models.weights import Card, save
from geomoe.tasks.average import MovingAverage
from geomoe.tasks.commit import commit
from geomoe.tasks.stream import StreamData
from geomoe.tasks.task import Task

__all__ = ["WeightsWriter"]

_WRITTEN = ("last.ckpt", "last.safetensors", "best.safetensors")


class WeightsWriter(pl.Callback):
    """Keeps ``best.safetensors`` and ``last.safetensors``: averaged weights after a validation.

    Best is by the metric that the task chooses by on samples that are not in the test split; of a training in
    stages it is of the last one.

    Args:
        source: what the data are, with source and terms, for the card; those of published data sets
            are known.
        licence: SPDX identifier of the weights, for the card; whose they are decides it.
    """

    def __init__(self, source: str = "", licence: str = "not stated") -> None:
        self.source, self.licence = source, licence
        self.best = float("-inf")
        self.commit = ""
        self.trained = False
        self._resumes_at: int | None = None

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]

    def refuse_what_would_be_lost(self, trainer: pl.Trainer, *, resumes: bool) -> None:
        """Raise GeomoeError if nothing would be trained or kept, or an earlier run's weights overwritten."""
        if trainer.max_steps == 0 or trainer.max_epochs == 0:
            name = "max_steps" if trainer.max_steps == 0 else "max_epochs"
            raise GeomoeError(f"{name}=0: nothing would be trained; give --trainer.{name} a number from 1")
        if trainer.max_steps < 0 and trainer.max_epochs == -1:
            raise GeomoeError("this training would never end; give --trainer.max_steps a number from 1")
        for name in (
            "accumulate_grad_batches", "check_val_every_n_epoch", "limit_train_batches", "limit_val_batches"
        ):  # fmt: skip
            value = getattr(trainer, name)
            expect(
                value > 0, f"trainer.{name}", value, "more than 0, for weights are written after validation"
            )
        for name in ("gradient_clip_val", "log_every_n_steps"):
            value = getattr(trainer, name)
            expect(value is None or value >= 0, f"trainer.{name}", value, "0 or more")
        folder = _checkpoints(trainer).dirpath
        if not resumes and folder and (earlier := Path(folder) / "best.safetensors").exists():
            raise GeomoeError(
                f"{earlier} is there from an earlier run; give another --checkpoint.dirpath, remove it, "
                "or resume with --ckpt_path"
            )

    @contextmanager
    def alone(self, trainer: pl.Trainer) -> Iterator[None]:
        """Hold the folder of checkpoints and weights; raises BusyError where another training does."""
        checkpoints = _checkpoints(trainer)
        if not trainer.is_global_zero:
            yield
            return
        if checkpoints.dirpath is None:  # as Lightning would choose it later
            checkpoints.dirpath = str(Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints")
        folder = Path(checkpoints.dirpath)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GeomoeError(
                f"{folder} cannot be made: {error.strerror}; give another --checkpoint.dirpath"
            ) from error
        busy = f"another training is at {folder}; wait for it, or give another --checkpoint.dirpath"
        with locked(folder / ".fit", busy):
            for left in (p for name in _WRITTEN for p in folder.glob(f".{name}.*.part")):
                left.unlink()  # of a training that was killed while it wrote
            yield

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.commit = commit()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not checkpoint["callbacks"].get(self.state_key):
            raise GeomoeError("the checkpoint does not say how good the best weights are; start over")
        self._resumes_at = checkpoint["global_step"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._resumes_at not in (None, trainer.global_step):
            raise GeomoeError(
                f"the checkpoint is of step {self._resumes_at} and its loop of step "
                f"{trainer.global_step}; start over"
            )
        self.trained = True
        if trainer.is_global_zero:
            data = trainer.datamodule  # type: ignore[attr-defined]
            assert isinstance(data, StreamData)
            said = f"{amount}; weights" if (amount := data.amount()) else "weights"
            sys.stderr.write(f"geomoe: {said} are kept in {self._folder(trainer)}\n")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best = self._folder(trainer) / "best.safetensors"
        if trainer.is_global_zero and best.exists():
            sys.stderr.write(f"geomoe: the best weights are {best}, the latest last.safetensors beside it\n")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Task)
        average = self._average(trainer)
        model = average.averaged.model if average else pl_module.model
        assert isinstance(model, torch.nn.Module)
        by = pl_module.chosen_by
        score = measure(by).gain(pl_module.validation_scores()[by], 0.0)  # more is better, whatever it is
        folder = self._folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        card = self._card(trainer, pl_module)
        save(folder / "last.safetensors", model, card)
        if score > self.best and pl_module.stages.last(max(trainer.global_step - 1, 0)):
            self.best = score
            save(folder / "best.safetensors", model, card)

    @staticmethod
    def _folder(trainer: pl.Trainer) -> Path:
        return Path(_checkpoints(trainer).dirpath or ".")

    @staticmethod
    def _average(trainer: pl.Trainer) -> MovingAverage | None:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        return next((c for c in callbacks if isinstance(c, MovingAverage)), None)

    def _card(self, trainer: pl.Trainer, task: Task) -> Card:
        average = self._average(trainer)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, StreamData)
        return Card(
            model=task.name,
            task=task.family,
            config=asdict(task.model.config),  # type: ignore[call-overload]
            radiometry=data.radiometry,
            data={
                **data.describe(self.source),
                **({"dtypes": list(data.dtypes)} if data.dtypes else {}),
            },
            degradation=data.inputs,
            recipe={
                "steps": trainer.global_step,
                "of": trainer.max_steps,
                "batch_size": data.samples_per_step,
                "processes": trainer.world_size,
                "accumulated_batches": trainer.accumulate_grad_batches,
                **data.recipe,
                "steps_per_epoch": data.steps_per_epoch,
                "losses": task.recipe_losses,
                "optimiser": task.optimizer.capitalize(),
                "learning_rate": task.learning_rate,
                "betas": list(task.betas),
                "schedule": task.schedule,
                "milestones": list(task.milestones) if task.schedule == "step" else [],
                "warmup": task.warmup,
                "gradient_clip": trainer.gradient_clip_val,
                "ema_decay": average.decay if average else None,
                "balance": task.balance,
                "balance_weight": task.balance_weight,
                "balance_until": task.balance_until,
                "precision": str(trainer.precision),
                "compiled": task.compiled,
                "seed": task.seed,
                **({"stages": [asdict(one) for one in stages]} if (stages := task.stages.stages) else {}),
                **({"start": _said_of_start(task.start)} if task.start else {}),
            },
            protocol=task.protocol_name,
            scores={name: round(value, 4) for name, value in task.validation_scores().items()}
            | {"scored": "validation"},
            commit=self.commit,
            date=datetime.now(UTC).date().isoformat(),
            licence=self.licence,
            bands=list(data.band_names),
        )


def _said_of_start(card: Card) -> dict[str, Any]:
    return {"hash": card.hash, "recipe": card.recipe, "data": card.data, "degradation": card.degradation}


def _checkpoints(trainer: pl.Trainer) -> ModelCheckpoint:
    checkpoints = trainer.checkpoint_callback
    assert isinstance(checkpoints, ModelCheckpoint)
    return checkpoints
