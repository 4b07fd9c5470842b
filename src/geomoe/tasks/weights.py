"""Writes weights with a card while training: no checkpoint ever has to be unpickled to get them."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging

from geomoe.models.weights import Card, save
from geomoe.tasks.data import SuperResolutionData
from geomoe.tasks.super_resolution import SuperResolution

__all__ = ["WeightsWriter"]


class WeightsWriter(pl.Callback):
    """Keeps ``best.safetensors`` and ``last.safetensors``: averaged weights after a validation.

    Best is by ``val/psnr``, on images that are not in the test split.

    Args:
        source: what the data are, with source and terms, for the card.
        licence: SPDX identifier of the weights, for the card.
    """

    def __init__(self, source: str = "", licence: str = "Apache-2.0") -> None:
        self.source, self.licence = source, licence
        self.best = float("-inf")

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SuperResolution)
        model = self._averaged(trainer, pl_module)
        score = float(trainer.callback_metrics["val/psnr"])
        folder = Path(trainer.checkpoint_callback.dirpath or ".")  # type: ignore[union-attr]
        folder.mkdir(parents=True, exist_ok=True)
        card = self._card(trainer, pl_module)
        save(folder / "last.safetensors", model, card)
        if score > self.best:
            self.best = score
            save(folder / "best.safetensors", model, card)

    @staticmethod
    def _averaged(trainer: pl.Trainer, pl_module: SuperResolution) -> torch.nn.Module:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            average = getattr(callback, "_average_model", None)
            if isinstance(callback, WeightAveraging) and average is not None:
                averaged: torch.nn.Module = average.module.model
                return averaged
        return pl_module.model

    def _card(self, trainer: pl.Trainer, task: SuperResolution) -> Card:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SuperResolutionData)
        metrics = trainer.callback_metrics
        return Card(
            model=task.name,
            config=asdict(task.model.config),  # type: ignore[call-overload]
            radiometry="unit: uint8 over 255; other types by their 0.1 and 99.9 percentiles, per band",
            data={
                "layout": data.layout,
                "source": self.source,
                "split": "fit: 1512 of the 1575 training images"
                if data.layout == "ucmerced"
                else "all but validation",
            },
            degradation=data.degradation.name,
            recipe={
                "steps": trainer.global_step,
                "of": trainer.max_steps,
                "batch_size": data.batch_size,
                "patch_size": data.patch_size,
                "learning_rate": task.learning_rate,
                "schedule": task.schedule,
                "loss": "L1",
                "balance": task.balance,
                "precision": str(trainer.precision),
                "seed": data.seed,
            },
            protocol=task.protocol.name,
            scores={name: round(float(metrics[f"val/{name}"]), 4) for name in ("psnr", "ssim", "gain")}
            | {"scored": "validation"},
            commit=_commit(),
            date=datetime.now(UTC).date().isoformat(),
            licence=self.licence,
        )


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
