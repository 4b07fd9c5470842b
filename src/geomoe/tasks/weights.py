"""Writes weights with a card while training: no checkpoint ever has to be unpickled to get them."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import lightning.pytorch as pl
import torch

from geomoe.errors import GeomoeError
from geomoe.models.weights import Card, save
from geomoe.tasks.average import MovingAverage
from geomoe.tasks.data import SuperResolutionData
from geomoe.tasks.super_resolution import SuperResolution

__all__ = ["WeightsWriter"]


class WeightsWriter(pl.Callback):
    """Keeps ``best.safetensors`` and ``last.safetensors``: averaged weights after a validation.

    Best is by ``val/psnr``, on images that are not in the test split.

    Args:
        source: what the data are, with source and terms, for the card; those of published data sets
            are known.
        licence: SPDX identifier of the weights, for the card.
    """

    def __init__(self, source: str = "", licence: str = "Apache-2.0") -> None:
        self.source, self.licence = source, licence
        self.best = float("-inf")
        self.commit = ""
        self.trained = False

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]

    def refuse_what_would_be_lost(
        self, trainer: pl.Trainer, data: SuperResolutionData, *, resumes: bool
    ) -> None:
        """Raise GeomoeError if steps would never be written, or an earlier run's weights overwritten."""
        if trainer.max_steps > 0 and trainer.max_steps % data.steps_per_epoch:
            raise GeomoeError(
                f"max_steps={trainer.max_steps} is no multiple of steps_per_epoch={data.steps_per_epoch}: "
                "the last steps would never be validated or written; change one of them"
            )
        folder = trainer.checkpoint_callback.dirpath  # type: ignore[union-attr]
        if not resumes and folder and (earlier := Path(folder) / "best.safetensors").exists():
            raise GeomoeError(
                f"{earlier} is there from an earlier run; give another --checkpoint.dirpath, remove it, "
                "or resume with --ckpt_path"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.commit = _commit()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.trained = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SuperResolution)
        average = self._average(trainer)
        model = average.averaged.model if average else pl_module.model
        assert isinstance(model, torch.nn.Module)
        score = float(trainer.callback_metrics["val/psnr"])
        folder = self._folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        card = self._card(trainer, pl_module)
        save(folder / "last.safetensors", model, card)
        if score > self.best:
            self.best = score
            save(folder / "best.safetensors", model, card)

    @staticmethod
    def _folder(trainer: pl.Trainer) -> Path:
        return Path(trainer.checkpoint_callback.dirpath or ".")  # type: ignore[union-attr]

    @staticmethod
    def _average(trainer: pl.Trainer) -> MovingAverage | None:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        return next((c for c in callbacks if isinstance(c, MovingAverage)), None)

    def _card(self, trainer: pl.Trainer, task: SuperResolution) -> Card:
        average = self._average(trainer)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SuperResolutionData)
        metrics = trainer.callback_metrics
        return Card(
            model=task.name,
            config=asdict(task.model.config),  # type: ignore[call-overload]
            radiometry="unit",
            data=data.describe(self.source),
            degradation=data.inputs,
            recipe={
                "steps": trainer.global_step,
                "of": trainer.max_steps,
                "batch_size": data.patches_per_step,
                "processes": trainer.world_size,
                "accumulated_batches": trainer.accumulate_grad_batches,
                "patch_size": data.patch_size,
                "steps_per_epoch": data.steps_per_epoch,
                "losses": task.losses,
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
                **({"start": {"hash": task.start.hash, "recipe": task.start.recipe}} if task.start else {}),
            },
            protocol=task.protocol.name,
            scores={name: round(float(metrics[f"val/{name}"]), 4) for name in ("psnr", "ssim", "gain")}
            | {"scored": "validation"},
            commit=self.commit,
            date=datetime.now(UTC).date().isoformat(),
            licence=self.licence,
        )


def _commit() -> str:
    """Of the repository that this file lies in, ``-dirty`` if it was changed; empty outside of one."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
