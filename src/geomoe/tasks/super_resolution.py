"""The super-resolution task: an image of larger scale, compared with the fine one."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from geomoe.data.sample import Batch
from geomoe.data.super_resolution.degradation import interpolated
from geomoe.metrics.protocol import PROTOCOLS, Protocol, get_protocol
from geomoe.models.contract import ModelContract
from geomoe.models.weights import LoadedModel
from geomoe.tasks.super_resolution_losses import LOSSES
from geomoe.tasks.task import Task

__all__ = ["SuperResolution"]


class SuperResolution(Task):
    """Training of a model that makes images larger; by default L1, as MFG-HMoE.

    Args:
        model: name in the registry.
        scale: 2, 3, 4 or 8.
        bands: channels.
        protocol: of the validation score.
        recipe: see :class:`geomoe.tasks.task.Task`; losses are those of
            :data:`geomoe.tasks.super_resolution_losses.LOSSES`.
    """

    family = "super_resolution"
    LOSSES = LOSSES
    monitor = "psnr"
    base = "bicubic"
    from_data = ("scale", "bands")

    def __init__(
        self,
        model: str = "mfg_hmoe_light",
        scale: int = 4,
        bands: int = 3,
        protocol: str = "mfg_hmoe",
        **recipe: Any,
    ) -> None:
        super().__init__(model, {"scale": scale, "bands": bands}, **recipe)
        self.scale, self.protocol = scale, get_protocol(protocol)
        self.protocol.check_bands(bands)

    @classmethod
    def of(cls, weights: LoadedModel) -> Self:
        task = super().of(weights)
        task.scale = weights.contract.scale
        task.protocol = PROTOCOLS.get(weights.card.protocol, task.protocol)
        return task

    def given(self, batch: Batch) -> dict[str, Tensor]:
        contract: ModelContract = self.model.contract  # type: ignore[assignment]
        return {"known": batch["known"]} if "known" in batch and contract.informed else {}

    def truth(self, batch: Batch) -> Tensor:
        return batch["target"]

    def metrics(self) -> MetricCollection:
        return MetricCollection([ProtocolScores(self.protocol, self.scale)])

    def by_item(self, answer: Tensor, batch: Batch) -> dict[str, Tensor]:
        pairs = zip(answer, self.truth(batch), strict=True)
        found = [self.protocol.scores(one, other, self.scale) for one, other in pairs]
        return {name: torch.tensor([of[name] for of in found]) for name in self.protocol.metrics}

    def baseline(self, batch: Batch) -> Tensor:
        return interpolated(batch["image"], self.scale)

    @property
    def protocol_name(self) -> str:
        return self.protocol.name


class ProtocolScores(Metric):
    """Means over images of what a protocol makes of each: ``psnr`` in dB, and ``ssim``."""

    full_state_update = False
    psnr: Tensor
    ssim: Tensor
    images: Tensor

    def __init__(self, protocol: Protocol, scale: int) -> None:
        super().__init__()
        self.protocol, self.scale = protocol, scale
        for name in ("psnr", "ssim", "images"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, result: Tensor, truth: Tensor) -> None:
        for one, other in zip(result, truth, strict=True):
            psnr, ssim = self.protocol.score(one, other, self.scale)
            self.psnr += psnr
            self.ssim += ssim
            self.images += 1

    def compute(self) -> dict[str, Tensor]:
        return {"psnr": self.psnr / self.images, "ssim": self.ssim / self.images}
