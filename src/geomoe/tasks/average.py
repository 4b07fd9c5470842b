"""The moving average of the weights, which is what is validated and shipped."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

__all__ = ["MovingAverage"]


class MovingAverage(EMAWeightAveraging):
    """Exponential moving average of the parameters, updated after every step.

    Buffers are copied, not averaged: an average would truncate integer ones, and the biases of routers
    would lag behind.

    Args:
        decay: share of the old average that is kept at each step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(use_buffers=False, decay=decay)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # The model is moved to its device only later; an average left behind would be fetched at each step.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    @property
    def averaged(self) -> torch.nn.Module:
        """A copy of the trained module with averaged parameters."""
        assert self._average_model is not None
        module = self._average_model.module
        assert isinstance(module, torch.nn.Module)
        return module
