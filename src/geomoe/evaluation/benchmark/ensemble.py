"""Several networks as one, which says what they say on average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from geomoe.models.contract import ModelContract
from geomoe.models.weights import LoadedModel

__all__ = ["Ensemble", "joined"]


class Ensemble(nn.Module):
    """The mean of the members' images or values; of those that choose classes, of their probabilities.

    Args:
        members: networks that take and give the same, at least one.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def contract(self) -> ModelContract:
        """What every member takes and gives."""
        contract: ModelContract = self.members[0].contract  # type: ignore[assignment]
        return contract

    @property
    def config(self) -> Any:
        """Of the first member; what data decide is the same for all."""
        return self.members[0].config

    def forward(self, *args: Any, **named: Any) -> Tensor:
        """As a member; logits are logarithms of the mean probabilities."""
        said = torch.stack([member(*args, **named) for member in self.members])
        if not any(output.classes for output in self.contract.outputs.values()):
            return said.mean(0)
        probabilities = said.float().softmax(2).mean(0)
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def joined(name: str, members: Sequence[LoadedModel]) -> LoadedModel:
    """Trained networks as one called ``name``; its card is the first one's."""
    together = Ensemble([member.model for member in members]).eval()
    return replace(members[0], name=name, model=together, path=None)
