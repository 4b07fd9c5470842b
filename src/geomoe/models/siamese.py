"""What networks share that say what changed between two dates: one trunk, which sees each date by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.sensors import by_band, presence, sensor_slices
from geomoe.layers.windows import pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig, SensorConfig

__all__ = ["Date", "PairConfig", "Siamese", "coarser"]


@dataclass(frozen=True)
class PairConfig(MapConfig, SensorConfig):
    """Options of a network for pairs of images.

    Attributes:
        sensors: number of bands of the first and of the second date, by name.
    """

    bands: int = 6
    classes: tuple[str, ...] = ("unchanged", "changed")
    sensors: Mapping[str, int] = field(default_factory=lambda: {"before": 3, "after": 3})

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sensors) != 2:
            raise ValueError(f"sensors={dict(self.sensors)}: expected two, one for each date")

    @property
    def channels(self) -> int:
        """What the trunk sees of either date: the bands of the one that has more."""
        return max(self.sensors.values())


class Date(NamedTuple):
    """What the trunk is shown of a date.

    Attributes:
        image: ``[B, channels, H, W]`` after normalisation, 0 where there is nothing; whole cells.
        there: ``[B, H, W]`` bool, the pixels that were measured; None if all were.
    """

    image: Tensor
    there: Tensor | None


def coarser(there: Tensor | None, factor: int) -> Tensor | None:
    """``[B, H / factor, W / factor]`` bool, the cells that hold a pixel that is there; None if all do."""
    if there is None or factor == 1:
        return there
    return F.max_pool2d(there[:, None].float(), factor)[:, 0] > 0


class Siamese(nn.Module):
    """Base of networks with one trunk for both dates of a pair, whose bands the image stacks.

    Args:
        config: of the network.
        cells: side of the cells that an image is filled up to, by mirroring.
    """

    takes_present = True
    """:meth:`forward` knows ``present``."""

    def __init__(self, config: PairConfig, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.pair = config
        self.normalise = Normalise(config)

    def dates(self, x: Tensor, valid: Tensor | None = None, present: Tensor | None = None) -> list[Date]:
        """Both dates of images ``[B, bands, H, W]``; masks as of :func:`geomoe.layers.sensors.presence`.

        Of a date with fewer bands than the other they are repeated, as a grey image is read as a coloured
        one.
        """
        sensors = self.pair.sensors
        y, there = self.normalise(x), None
        if valid is not None or present is not None:
            there = presence(x, sensors, present, valid)
            y = y.masked_fill(~by_band(there, sensors), 0)
        elif any(size % self.cells for size in x.shape[2:]):
            there = presence(x, sensors)
        y = pad_to_multiple(y, self.cells)
        if there is not None:
            more = [whole - size for whole, size in zip(y.shape[2:], x.shape[2:], strict=True)]
            there = F.pad(there, (0, more[1], 0, more[0]))
        return [
            Date(_repeated(y[:, bands], self.pair.channels), None if there is None else there[:, number])
            for number, bands in enumerate(sensor_slices(sensors).values())
        ]

    def _contract(self, reach: int, tile: int) -> ModelContract:
        """Of a network whose pixels see ``reach`` others to each side; its tiles have a side of ``tile``."""
        c, cells = self.pair, self.cells
        whole, margin = (-(-pixels // cells) * cells for pixels in (tile, reach))
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        return ModelContract(
            {"image": Input(c.bands, sensors=dict(c.sensors))},
            {"classes": output},
            Tiling(multiple=cells, tile=whole, margin=margin, reach=reach),
        )


def _repeated(x: Tensor, channels: int) -> Tensor:
    bands = x.shape[1]
    return x if bands == channels else x.index_select(1, torch.arange(channels, device=x.device) % bands)
