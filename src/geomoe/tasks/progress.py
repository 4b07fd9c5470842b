"""How far a training is, for logs."""

from __future__ import annotations

import sys
import time

import lightning.pytorch as pl

from geomoe.tasks.task import Task

__all__ = ["ValidationLines"]


class ValidationLines(pl.Callback):
    """A line on standard error after every validation, where a bar would be no use."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._start = time.monotonic(), trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = trainer.global_step - self._start if not trainer.sanity_checking else 0
        if not done or not trainer.is_global_zero:
            return
        total = int(trainer.estimated_stepping_batches)
        left = (time.monotonic() - self._began) / done * (total - trainer.global_step) / 60
        assert isinstance(pl_module, Task)
        found = pl_module.describe(pl_module.validation_scores())
        sys.stderr.write(f"step {trainer.global_step} of {total}: {found}; {left:.0f} min left\n")
        sys.stderr.flush()
