"""Upscalers that are quick and whose results are known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.reference import RoutingReference
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.routing.router import AnyRouter
from geomoe.moe.units import Pixels
from geomoe.pipeline import Request
from tests.scenes import pixels, write_scene


@dataclass(frozen=True)
class FakeUpscaler:
    model: nn.Module
    contract: ModelContract
    name: str = "fake"
    hash: str = "0123abcd"
    reference: RoutingReference | None = None


class ByBrightness(AnyRouter):
    """Routes each pixel to one of 2 + 3 experts by its brightness."""

    group_sizes = (2, 3)

    def forward(self, rows: Tensor, grid: tuple[int, ...], *_: object) -> RoutingPlan:
        logits = -((rows[:, :1] - torch.linspace(0, 1, 5, device=rows.device)) ** 2) * 20  # [N, E]
        probabilities = logits.softmax(1)
        chosen = probabilities.topk(2, 1).indices  # [N, k]
        weights = probabilities.gather(1, chosen)
        return RoutingPlan(chosen, weights, probabilities, logits, self.group_sizes, grid)


class Nearest(nn.Module):
    """Repeats pixels, and routes them by `ByBrightness`."""

    config = SimpleNamespace(kernel_sizes=(1, 3))

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale, self.router = scale, ByBrightness()

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        if trace is not None:
            pixels = Pixels.of(x)
            rows = pixels.to_rows(x)
            trace.record(self.router(rows, pixels.grid), self.router, rows)
        return x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


class Convolutional(nn.Module):
    """Two random 3 x 3 convolutions, then nearest: needs 2 pixels of context, mixes bands, routes nothing."""

    def __init__(self, scale: int, bands: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(bands, 8, 3, padding=1, padding_mode="replicate"), nn.GELU(),
            nn.Conv2d(8, bands, 3, padding=1, padding_mode="replicate"),
        )  # fmt: skip
        self.scale = scale

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        return nn.functional.interpolate(x + 0.1 * self.layers(x), scale_factor=self.scale, mode="nearest")


def nearest(
    scale: int = 2, bands: int = 3, *, multiple: int = 4, tile: int = 16, margin: int = 4
) -> FakeUpscaler:
    return FakeUpscaler(Nearest(scale), ModelContract.of_images(scale, bands, Tiling(multiple, tile, margin)))


def convolutional(scale: int = 2, bands: int = 3, *, tile: int = 16) -> FakeUpscaler:
    return FakeUpscaler(
        Convolutional(scale, bands), ModelContract.of_images(scale, bands, Tiling(4, tile, 4))
    )


def scene_task(folder: Path, name: str, side: int = 40) -> Request:
    """A scene of that name, and where it goes: the folder ``out``."""
    write_scene(folder / f"{name}.tif", pixels(3, side, side, "uint16", seed=ord(name)))
    return Request(str(folder / f"{name}.tif"), str(folder / "out" / f"{name}.tif"))


def of(scenes: Iterable[Request], settings: Request) -> list[Request]:
    """Scenes, each with its maps and bands, and with what is the same for all."""
    return [
        replace(settings, src=each.src, dst=each.dst, layers=each.layers, bands=each.bands) for each in scenes
    ]
