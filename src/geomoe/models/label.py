"""What networks that know classes begin with, and those that label whole images end with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geomoe.layers.hybrid import mlp
from geomoe.models.contract import Input, ModelContract, Output
from geomoe.models.decision_moe import DecisionMoE
from geomoe.models.options import ClassConfig, LabelConfig
from geomoe.moe.plan import RoutingTrace

__all__ = ["Head", "Normalise", "label_contract"]


class Normalise(nn.Module):
    """``(x - mean) / std``, band by band; both are of the configuration, and so of the card."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClassConfig) -> None:
        super().__init__()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(config, name)).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Head(nn.Module):
    """Features ``[B, channels]`` to logits ``[B, classes]``, by one layer or by a committee of networks.

    Where there are no classes, to themselves.
    """

    def __init__(self, config: LabelConfig, channels: int) -> None:
        super().__init__()
        classes = len(config.classes)
        self.linear: nn.Module = nn.Identity()
        if classes and config.committee == 1:
            self.linear = nn.Linear(channels, classes)
        elif classes:
            members = [
                nn.Sequential(mlp(channels, 1), nn.GELU(), nn.Linear(channels, classes))
                for _ in range(config.committee)
            ]
            self.linear = DecisionMoE(members, config.vote, channels)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        if isinstance(self.linear, DecisionMoE):
            return self.linear(x, trace)  # type: ignore[no-any-return]
        out: Tensor = self.linear(x)
        return out


def label_contract(config: ClassConfig, features: int) -> ModelContract:
    """One image in, one label out; features where there are no classes."""
    classes = config.classes
    output = Output("label", len(classes), classes=classes) if classes else Output("features", features)
    return ModelContract({"image": Input(config.bands)}, {output.kind: output})
