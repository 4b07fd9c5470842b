"""What the routing does while a model trains, in the log and in pictures."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from geomoe.moe.pictures import expert_map_picture, usage_picture
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.telemetry import load, routing_health

__all__ = ["RoutingMonitor"]


class RoutingMonitor(pl.Callback):
    """Logs the figures of every plan, and draws usage over time and expert maps for TensorBoard.

    For modules that keep the plans of their last step in ``trace``.
    """

    def __init__(self) -> None:
        self._loads: dict[int, list[Tensor]] = {}
        self._sizes: dict[int, tuple[int, ...]] = {}
        self._logged = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or trainer.global_step % every or trainer.global_step == self._logged:
            return
        self._logged = trainer.global_step
        for i, plan in enumerate(self._trace(pl_module)):
            share = load(plan)
            self._loads.setdefault(i, []).append(share.cpu())
            self._sizes[i] = plan.group_sizes
            pl_module.log_dict(_figures(i, plan))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or trainer.sanity_checking:
            return
        for i, plan in enumerate(self._trace(pl_module)):
            if len(plan.grid) == 3:
                self._draw(trainer, f"routing/{i}/experts", expert_map_picture(plan))
        for i, loads in self._loads.items():
            self._draw(trainer, f"routing/{i}/usage", usage_picture(loads, self._sizes[i]))

    def _trace(self, module: pl.LightningModule) -> RoutingTrace:
        trace = getattr(module, "trace", None)
        return trace if isinstance(trace, RoutingTrace) else RoutingTrace()

    def _draw(self, trainer: pl.Trainer, name: str, picture: Tensor) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture.cpu(), trainer.global_step)


def _figures(i: int, plan: RoutingPlan) -> dict[str, float]:
    health = routing_health(plan)
    figures = {
        "load_entropy": health.load_entropy,
        "marginal_entropy": health.marginal_entropy,
        "row_entropy": health.row_entropy,
        "gini": health.gini,
        "dead_experts": float(health.dead),
        "confidence": health.confidence,
        "dropped": health.dropped,
        "experts_per_row": health.experts_per_row,
    }
    figures |= {f"load_{e}": share for e, share in enumerate(health.load)}
    return {f"routing/{i}/{name}": value for name, value in figures.items()}
