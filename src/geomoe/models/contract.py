"""What a model asks of the image it is given, and what it promises in return."""

from __future__ import annotations

from dataclasses import dataclass, replace

from geomoe.layers.conserve import CONSERVE_REACH

__all__ = ["ModelContract"]


@dataclass(frozen=True)
class ModelContract:
    """Facts that tiling needs about a model.

    Attributes:
        scale: side of the output pixel grid over that of the input.
        bands: channels in and out.
        multiple: tiles that start on a multiple of this many input pixels see the
            same window grid as the whole scene does.
        tile: side of a tile's core in input pixels, a multiple of ``multiple``.
        margin: input pixels of context around the core, a multiple of ``multiple``.
        reach: how many input pixels away an output pixel sees at most, if tiles start on multiples; None
            if it sees the whole image, or no bound is known. Where it is at most the margin, tiles are equal
            to the untiled image.
        informed: whether ``model(x, known=...)`` takes what is known of each image; see
            :class:`geomoe.layers.known.Known`.
    """

    scale: int
    bands: int
    multiple: int
    tile: int
    margin: int
    reach: int | None = None
    informed: bool = False

    def conserving(self) -> ModelContract:
        """The contract of the same model where :func:`geomoe.layers.conserve.conserve` follows it."""
        equal = self.reach is not None and self.reach <= self.margin
        least = CONSERVE_REACH + (self.reach if self.reach is not None and equal else 0)
        return replace(
            self,
            margin=max(self.margin, -(-least // self.multiple) * self.multiple),
            reach=None if self.reach is None else self.reach + CONSERVE_REACH,
        )
