"""The moving average of the weights, which is what is validated and shipped."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from geomoe.errors import expect
from geomoe.tasks.task import Task

__all__ = ["MovingAverage"]


class MovingAverage(EMAWeightAveraging):
    """Exponential moving average of the parameters, updated after every step.

    Buffers are copied, not averaged: an average would truncate integer ones, and the biases of routers
    would lag behind.

    Early on the average is of the latest weights alone, ``(1 + t) / (10 + t)`` of the old one at step ``t``:
    else the weights that training started from would still weigh a third after 1,000 steps. Each stage of a
    training begins so anew, from the latest weights, which are what it trains on top of: an average of the
    stage before would lag behind those that rest now. With ``decay`` 1 nothing moves within a stage.

    Args:
        decay: share of the old average that is kept at each step; reached after 9 / (1 - decay) steps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        expect(0 <= decay <= 1, "ema.decay", decay, "0 to 1")
        super().__init__(use_buffers=False, decay=decay)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # The model is moved to its device only later; an average left behind would be fetched at each step.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._latest_update_step:
            return  # gradients are still being accumulated
        assert isinstance(pl_module, Task)
        assert self._average_model is not None
        within = step - pl_module.stages.limits(step - 1)[0]
        # The library's update asks the device at each step whether it is the first, and takes one tensor
        # after the other.
        with torch.no_grad():
            old: list[Tensor] = list(self.averaged.parameters())
            new: list[Tensor] = list(pl_module.parameters())
            if within == 1:
                torch._foreach_copy_(old, new)
            else:
                kept_share = self.decay if self.decay == 1 else min(self.decay, (1 + within) / (10 + within))
                torch._foreach_lerp_(old, new, 1 - kept_share)
            for kept, now in zip(self.averaged.buffers(), pl_module.buffers(), strict=True):
                kept.copy_(now)
            self._average_model.n_averaged += 1
        self._latest_update_step = step

    @property
    def averaged(self) -> torch.nn.Module:
        """A copy of the trained module with averaged parameters."""
        assert self._average_model is not None
        module = self._average_model.module
        assert isinstance(module, torch.nn.Module)
        return module
