"""The task of learning classes in sessions, from images of several satellites."""

from __future__ import annotations

from torch import Tensor

from geomoe.data.sample import Batch
from geomoe.tasks.classification import Classification

__all__ = ["Incremental"]


class Incremental(Classification):
    """Classification of the classes of all sessions so far; a model may be told the satellite in training.

    Each session is a training of its own, which starts from the weights of the one before: nothing but these
    and the exemplars goes from one to the next.
    """

    family = "incremental"

    def given(self, batch: Batch) -> dict[str, Tensor]:
        told = getattr(self.model, "takes_domain", False) and "domain" in batch
        return {**super().given(batch), **({"domain": batch["domain"]} if told else {})}
