"""Units: an invertible view between a tensor and the rows that are routed.

Each unit has ``to_rows``, which makes rows ``[N, ...]`` of a tensor, ``from_rows``, which is its inverse,
and ``grid``, the shape that a plan's rows came from. Where an expert sees more than its own unit (a
convolution near a window's edge), the rows hold true neighbours as a halo, which experts use up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Modalities",
    "Neighbourhoods",
    "Pixels",
    "Regions",
    "Samples",
    "TimeSteps",
    "Tokens",
    "Windows",
    "pixels_to_rows",
    "rows_to_pixels",
]


def pixels_to_rows(x: Tensor) -> Tensor:
    """``[B, C, H, W]`` to one row a pixel, ``[B*H*W, C]``, in row-major order."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def rows_to_pixels(rows: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`pixels_to_rows`: ``[B*H*W, C]`` to ``[B, C, H, W]``."""
    batch, height, width = grid
    return rows.view(batch, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def check_image(x: Tensor) -> None:
    """Raise ValueError for anything but ``[B, C, H, W]``."""
    if x.dim() != 4:
        raise ValueError(f"expected an image [B, C, H, W], not {list(x.shape)}")


@dataclass(frozen=True)
class Unit:
    """Base of the units that a grid describes.

    Attributes:
        grid: the shape that rows come from, samples first.
    """

    grid: tuple[int, ...]

    def repeat(self, x: Tensor) -> Tensor:
        """``[B, D]``, say metadata of each image, to ``[N, D]``, the same for each of its rows."""
        if x.shape[0] != self.grid[0]:
            raise ValueError(f"{x.shape[0]} samples, expected {self.grid[0]}")
        return x.repeat_interleave(math.prod(self.grid[1:]), 0)


@dataclass(frozen=True)
class Pixels(Unit):
    """Pixels of ``[B, C, H, W]``: rows ``[B*H*W, C]``, grid ``(B, H, W)``."""

    grid: tuple[int, int, int]

    @staticmethod
    def of(x: Tensor) -> Pixels:
        check_image(x)
        batch, _, height, width = x.shape
        return Pixels((batch, height, width))

    def to_rows(self, x: Tensor) -> Tensor:
        return pixels_to_rows(x)

    def from_rows(self, rows: Tensor) -> Tensor:
        return rows_to_pixels(rows, self.grid)


@dataclass(frozen=True)
class Tokens(Unit):
    """Tokens of ``[B, ..., C]``, channels last: rows ``[B*..., C]``, grid ``(B, ...)``."""

    grid: tuple[int, ...]

    @staticmethod
    def of(x: Tensor) -> Tokens:
        return Tokens(tuple(x.shape[:-1]))

    def to_rows(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])

    def from_rows(self, rows: Tensor) -> Tensor:
        return rows.view(*self.grid, *rows.shape[1:])


@dataclass(frozen=True)
class Samples(Unit):
    """Whole samples of ``[B, ...]``: a row is what it was, grid ``(B,)``."""

    grid: tuple[int]

    @staticmethod
    def of(x: Tensor) -> Samples:
        return Samples((x.shape[0],))

    def to_rows(self, x: Tensor) -> Tensor:
        return x

    def from_rows(self, rows: Tensor) -> Tensor:
        return rows


@dataclass(frozen=True)
class TimeSteps(Unit):
    """Dates of a series ``[B, T, ...]``: rows ``[B*T, ...]``, grid ``(B, T)``."""

    grid: tuple[int, int]

    @classmethod
    def of(cls, x: Tensor) -> TimeSteps:
        return cls((x.shape[0], x.shape[1]))

    def to_rows(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)

    def from_rows(self, rows: Tensor) -> Tensor:
        return rows.reshape(*self.grid, *rows.shape[1:])

    def ids(self, device: torch.device | str | None = None) -> Tensor:
        """``[N]`` int64, the time step of each row."""
        return torch.arange(self.grid[1], device=device).repeat(self.grid[0])


class Modalities(TimeSteps):
    """Sensors of one place, ``[B, M, ...]``: rows ``[B*M, ...]``, grid ``(B, M)``.

    ``ids()`` says which sensor a row is.
    """


@dataclass(frozen=True)
class Windows(Unit):
    """Windows of ``[B, C, H, W]``, each with a halo of its true neighbours.

    Rows are ``[B*h*w, C, size + 2*halo, size + 2*halo]`` and the grid is ``(B, h, w)``, h and w the windows
    down and across. Outside the image, and where the last windows reach beyond it, rows are 0. An expert
    gives back ``[.., C', size, size]``: a convolution of ``2*halo + 1`` without padding sees what it would
    see in the whole image.

    Attributes:
        grid: ``(B, h, w)``.
        shape: height and width of the image.
        size: side of a window.
        halo: pixels around it.
    """

    grid: tuple[int, int, int]
    shape: tuple[int, int]
    size: int
    halo: int = 0

    @staticmethod
    def of(x: Tensor, size: int, halo: int = 0) -> Windows:
        check_image(x)
        batch, _, height, width = x.shape
        return Windows((batch, -(-height // size), -(-width // size)), (height, width), size, halo)

    def to_rows(self, x: Tensor) -> Tensor:
        (batch, down, across), (height, width), halo = self.grid, self.shape, self.halo
        x = F.pad(x, (halo, halo + across * self.size - width, halo, halo + down * self.size - height))
        side = self.size + 2 * halo
        windows = x.unfold(2, side, self.size).unfold(3, side, self.size)  # [B, C, h, w, side, side]
        return windows.permute(0, 2, 3, 1, 4, 5).reshape(batch * down * across, x.shape[1], side, side)

    def from_rows(self, rows: Tensor) -> Tensor:
        (batch, down, across), size = self.grid, self.size
        whole = rows.view(batch, down, across, rows.shape[1], size, size).permute(0, 3, 1, 4, 2, 5)
        image = whole.reshape(batch, rows.shape[1], down * size, across * size)
        return image[..., : self.shape[0], : self.shape[1]]

    def core(self, rows: Tensor) -> Tensor:
        """Rows without their halo, ``[N, C, size, size]``: ``from_rows(core(to_rows(x)))`` is x."""
        end = self.halo + self.size
        return rows[..., self.halo : end, self.halo : end]


class Regions:
    """Regions of a label map, planned once each and carried out on their pixels.

    Args:
        labels: ``[B, H, W]`` whole numbers, any values; equal labels of one image are one region, whether
            or not they touch.
    """

    def __init__(self, labels: Tensor) -> None:
        if labels.is_floating_point() or labels.dim() != 3:
            raise ValueError(
                f"labels: expected whole numbers [B, H, W], not {labels.dtype} {list(labels.shape)}"
            )
        self.pixels = Pixels((labels.shape[0], labels.shape[1], labels.shape[2]))
        image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1).expand_as(labels)
        found, self.index = (
            torch.stack([image, labels.long()], -1).view(-1, 2).unique(dim=0, return_inverse=True)
        )
        self.images, self.labels = found.unbind(1)
        self.grid = (len(found),)

    def to_rows(self, x: Tensor) -> Tensor:
        """Pixels ``[B*H*W, C]``; ``index`` ``[B*H*W]`` says which region each belongs to."""
        return self.pixels.to_rows(x)

    def from_rows(self, rows: Tensor) -> Tensor:
        return self.pixels.from_rows(rows)

    def pool(self, rows: Tensor) -> Tensor:
        """Mean ``[R, C]`` of each region's pixels: a signal for the router."""
        total = rows.new_zeros(self.grid[0], rows.shape[1]).index_add(0, self.index, rows)
        return total / torch.bincount(self.index, minlength=self.grid[0])[:, None]


class Neighbourhoods:
    """Pixels with their k x k surroundings, gathered only when asked for.

    A routed convolution must see each pixel's true neighbours, whichever expert those went to. Unfolding
    the whole image would cost ``k * k`` copies of it, so the image is padded once (with zeros, as a
    convolution pads) and rows are picked by index.

    Args:
        x: ``[B, C, H, W]`` features.
        reach: largest ``k // 2`` that will be asked for.
    """

    def __init__(self, x: Tensor, reach: int) -> None:
        batch, channels, height, width = x.shape
        self.grid = (batch, height, width)
        self.reach = reach
        self.row = width + 2 * reach  # pixels from one padded line to the next
        if torch.compiler.is_exporting():
            padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, reach, reach, reach, reach))
        else:
            padded = _Padded.apply(x, reach)  # type: ignore[no-untyped-call]
        self.flat = padded.reshape(-1, channels)  # [B * (H + 2r) * (W + 2r), C]

    @staticmethod
    def of(x: Tensor, reach: int) -> Neighbourhoods:
        """Of ``x`` ``[B, C, H, W]``, in the precision that autocast computes in."""
        check_image(x)
        if x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return Neighbourhoods(x, reach)

    @property
    def shape(self) -> tuple[int]:
        """``(N,)``, as a tensor of N rows would say; ``len()`` would fix the size of an exported graph."""
        batch, height, width = self.grid
        return (batch * height * width,)

    def image(self, reach: int) -> Tensor:
        """``[B, C, H + 2r, W + 2r]``, the image with ``reach`` pixels around it."""
        self.check(2 * reach + 1)
        batch, height, _ = self.grid
        high = height + 2 * self.reach
        padded = self.flat.view(batch, high, self.row, -1).permute(0, 3, 1, 2)
        spare = self.reach - reach
        return padded[..., spare : high - spare, spare : self.row - spare]

    def centres(self, rows: Tensor) -> Tensor:
        """Index into ``flat`` of pixels ``rows`` ``[n]``."""
        _, height, width = self.grid
        image, pixel = rows // (height * width), rows % (height * width)
        line, column = pixel // width, pixel % width
        return (image * (height + 2 * self.reach) + line + self.reach) * self.row + column + self.reach

    def check(self, kernel_size: int) -> None:
        """Raise ValueError for a kernel that sees farther than the border that was put around the image."""
        if kernel_size // 2 > self.reach:
            raise ValueError(f"a kernel of {kernel_size} needs reach={kernel_size // 2}, not {self.reach}")

    def offsets(self, kernel_size: int, dilation: int = 1) -> list[int]:
        """Steps in ``flat`` from a pixel to its surroundings, every ``dilation``-th pixel, row-major."""
        reach = kernel_size // 2 * dilation
        self.check(2 * reach + 1)
        steps = range(-reach, reach + 1, dilation)
        return [dy * self.row + dx for dy in steps for dx in steps]

    def gather(self, rows: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
        """Neighbourhoods of pixels ``rows`` ``[n]`` as ``[n, k * k * C]``, kernel position first."""
        steps = rows.new_tensor(self.offsets(kernel_size, dilation))
        around = self.centres(rows)[:, None] + steps  # [n, k * k]
        return self.flat[around].flatten(1)


class _Padded(torch.autograd.Function):
    """``[B, C, H, W]`` to ``[B, H + 2r, W + 2r, C]`` with zeros around; no value is written twice.

    The gradient has the layout of ``x``, as others that will be added to it most often have.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int) -> Tensor:
        batch, channels, height, width = x.shape
        out = x.new_empty(batch, height + 2 * reach, width + 2 * reach, channels)
        if reach:
            for border in (out[:, :reach], out[:, -reach:], out[:, :, :reach], out[:, :, -reach:]):
                border.zero_()
        out[:, reach : reach + height, reach : reach + width].copy_(x.permute(0, 2, 3, 1))
        ctx.reach, last = reach, torch.channels_last
        ctx.format = last if x.is_contiguous(memory_format=last) else torch.contiguous_format
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        r = ctx.reach
        inside = grad[:, r : grad.shape[1] - r, r : grad.shape[2] - r].permute(0, 3, 1, 2)
        if torch.is_grad_enabled():  # a derivative of this one is wanted
            return inside, None
        if ctx.format is torch.channels_last:
            return inside.contiguous(memory_format=ctx.format), None
        # A copy that also turns the layout is fast for matrices alone; at sides that are powers of two by
        # five times.
        out = torch.empty(inside.shape, dtype=grad.dtype, device=grad.device)
        for image, pixels in zip(out.flatten(2), inside.permute(0, 2, 3, 1).flatten(1, 2), strict=True):
            image.copy_(pixels.t())
        return out, None
