"""The end of a training whose numbers are none."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["FiniteLoss"]


class FiniteLoss(pl.Callback):
    """Ends a training before anything is written of steps whose loss or weights are NaN or infinite.

    A GPU is asked at every ``log_every_n_steps``-th step and at the end of an epoch alone: losses are summed,
    and a sum with NaN or infinity in it stays NaN or infinite.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sum, self._before = torch.zeros((), device=pl_module.device), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss: Tensor = outputs["loss"]
        self._sum += loss.detach()
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._look(trainer, bool(self._sum.isfinite()))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._look_at_all(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look_at_all(trainer, pl_module)

    def _look_at_all(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The last step's loss says nothing of what its gradient did.
        self._look(trainer, all(bool(t.isfinite().all()) for t in (self._sum, *module.parameters())))

    def _look(self, trainer: pl.Trainer, good: bool) -> None:
        # Of all processes: one that ended alone would leave the others waiting for it.
        bad = trainer.strategy.reduce(torch.tensor(float(not good), device=self._sum.device), reduce_op="sum")
        assert isinstance(bad, Tensor)
        if bad > 0:
            raise GeomoeError(
                f"the loss or the weights became NaN or infinite in steps {self._before + 1} to "
                f"{trainer.global_step}, of which nothing is written; resume the last epoch's checkpoint "
                "with a lower --model.learning_rate, or look for images with wild values"
            )
        self._sum.zero_()
        self._before = trainer.global_step
