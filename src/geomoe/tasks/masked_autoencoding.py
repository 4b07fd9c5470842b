"""Masked autoencoding: a ViT learns without labels, by what the squares look like that it is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanSquaredError

from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError, expect
from geomoe.models.masked import Decoder, squares
from geomoe.models.vit import Vit, VitConfig
from geomoe.moe.plan import RoutingTrace
from geomoe.tasks.task import Task

__all__ = ["MaskedAutoencoding"]


class MaskedAutoencoding(Task):
    """Training of a ViT without classes, which is all that the weights hold (He et al., CVPR 2022).

    It sees the squares that are shown; a small decoder says what the others look like, each brought to mean
    0 and deviation 1. The mean of each square, the baseline, has an error of 1, less what is flat.

    Args:
        model: name in the registry, of a ViT.
        bands: channels of the images.
        mean: what the model subtracts from images, band by band.
        std: what it then divides by.
        decoder: options of the decoder's blocks, as of :class:`geomoe.models.vit.VitConfig`.
        recipe: see :class:`geomoe.tasks.task.Task`; the loss is ``mse``, over the squares that are hidden.
    """

    family = "masked_autoencoding"
    LOSSES = {"mse": F.mse_loss}  # noqa: RUF012
    monitor = "mse"
    base = "the mean of each square"
    from_data = ("bands", "mean", "std")

    def __init__(
        self,
        model: str = "base_t",
        bands: int = 3,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        decoder: dict[str, Any] | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(model, {"bands": bands, "mean": tuple(mean), "std": tuple(std)}, **recipe)
        if not isinstance(self.model, Vit) or self.model.config.classes:
            raise GeomoeError(f"model.model={model!r}: expected a ViT without classes, such as base_t")
        c = self.model.config
        shape = {"embed_dim": 64, "depth": 2, "heads": 4, **(decoder or {})}
        self.decoder = Decoder(c.embed_dim, c.bands * c.patch**2, VitConfig(**shape))

    def predict(self, batch: Batch, trace: RoutingTrace | None = None) -> Tensor:
        """``[B, hidden, bands patch patch]``."""
        tokens, hidden = self.model.tokens(batch["image"]), batch["hidden"]  # type: ignore[operator]
        expect(
            tokens.shape[1:3] == hidden.shape[1:], "data.cell", batch["image"].shape[2] // hidden.shape[1],
            f"the model's patch, {self.model.config.patch}",  # type: ignore[union-attr]
        )  # fmt: skip
        shown = tokens[~hidden].unflatten(0, (len(hidden), 1, -1))  # [B, 1, shown, C]
        seen = self.model.encode(shown, trace)  # type: ignore[operator]
        made: Tensor = self.decoder(seen.flatten(1, 2), hidden)
        return made

    def truth(self, batch: Batch) -> Tensor:
        image = self.model.normalise(batch["image"])  # type: ignore[operator]
        side = image.shape[2] // batch["hidden"].shape[1]
        asked: Tensor = squares(image, side)[batch["hidden"]].unflatten(0, (len(image), -1))
        return asked

    def metrics(self) -> MetricCollection:
        return MetricCollection({"mse": MeanSquaredError()})

    def baseline(self, batch: Batch) -> Tensor:
        return torch.zeros_like(self.truth(batch))
