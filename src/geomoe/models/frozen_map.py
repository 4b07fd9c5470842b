"""Networks that make maps of what a frozen ViT sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.windows import in_windows, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.options import MapConfig
from geomoe.models.vit import frozen_base

__all__ = ["FrozenMap", "FrozenMapConfig"]


@dataclass(frozen=True)
class FrozenMapConfig(MapConfig):
    """Options of a :class:`FrozenMap`.

    Attributes:
        window: side of the squares whose tokens attend to each other, in tokens; a multiple of 4.
        base: options of the frozen ViT, beside those of ``base_t``.
        head_only: nothing learns but the head: what the base is worth by itself.
    """

    HOLDS: ClassVar = "base"

    window: int = 16
    base: Mapping[str, int] = field(default_factory=dict)
    head_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 4:
            raise ValueError(f"window={self.window}: expected a multiple of 4")


class FrozenMap(nn.Module):
    """A ViT that keeps its weights, and what a system has beside it.

    The image is cut into squares, each of which the ViT sees by itself, with positions of its own: it is not
    asked for more tokens at once than it learned with, and cost grows with the area alone. Scenes are mapped
    by tiles of the size of one square.

    Args:
        config: of the network.
    """

    keeps_start: ClassVar = True
    """A frozen network with random weights would be of no use."""

    def __init__(self, config: FrozenMapConfig) -> None:
        super().__init__()
        self.config = config
        self.base = frozen_base(config, config.base)

    @property
    def contract(self) -> ModelContract:
        c, patch = self.config, self.base.config.patch
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        tiling = Tiling(multiple=patch, tile=c.window // 2 * patch, margin=c.window // 4 * patch)
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling)

    def seen(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """``[B, bands, H', W']``: mirrored to whole tokens; what is not valid is the mean of its band."""
        if valid is not None:
            x = torch.where(valid[:, None], x, self.base.normalise.mean.to(x.dtype))
        return pad_to_multiple(x, self.base.config.patch)

    def tokens(self, seen: Tensor) -> Tensor:
        """``[B, H' / patch, W' / patch, C]`` of what :meth:`seen` gave."""
        patch = self.base.config.patch

        def embed(squares: Tensor) -> Tensor:
            return self.base.tokens(squares.permute(0, 3, 1, 2))

        return in_windows(embed, seen.permute(0, 2, 3, 1), self.config.window * patch, patch)

    def there(self, valid: Tensor | None) -> Tensor | None:
        """``[N]`` bool, which tokens show a pixel that there is, of ``[B, H, W]``; None where all do."""
        if valid is None:
            return None
        patch = self.base.config.patch
        rows, columns = (-size % patch for size in valid.shape[1:])
        return F.max_pool2d(F.pad(valid.float(), (0, columns, 0, rows)), patch).flatten() > 0
