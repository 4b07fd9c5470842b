"""MambaMoE: a whole hyperspectral scene by state spaces, whose directions of scanning are experts.

Xu, Wang, Jiao, Zhang, Zhang, "MambaMoE: Mixture-of-Spectral-Spatial-Experts State Space Model for
Hyperspectral Image Classification", Information Fusion 127 (2026) 103811. At a half, a quarter and an eighth
of the scene's size a block looks at the features twice: along their channels by two state spaces that every
pixel shares, and over the scene by some of four that scan it row by row, column by column, and each
backwards. What the coarse sizes found is added to the finer ones, and each size says what it sees.

From the paper: the three sizes, the blocks, the four directions with a gate of the scene's mean, the two best
carried out with the gate's own probabilities, the shared pair along the channels, the refinement on the way
up, the loss of uncertain pixels. Other than in the released program, and assumed: a scan's results are put
back in their places; the spectral pair has parameters of its own that do not depend on the scene's size; an
expert keeps its direction whatever its rank; uncertainty is the entropy of all classes; the loss of all
labels is that of the finest size. Pixels that are not valid are stepped over by every scan and count in no
mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import ResidualUnit
from geomoe.layers.norms import ChannelNorm, ValidGroupNorm
from geomoe.layers.selective_scan import GatedScan
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig, check_divides
from geomoe.models.registry import register
from geomoe.models.twin import Twin, twin_of
from geomoe.moe import Direction, LinearScore, ModuleExperts, MoE, Router, TopK, in_order, scan_order
from geomoe.moe.plan import RoutingTrace

__all__ = ["MambaMoE", "MambaMoEConfig", "uncertain_labels"]

_SIZES = ("half", "quarter", "eighth")
_CELLS = 2 ** len(_SIZES)
_TILE = 512
"""Side of a tile's core, pixels: a scene of that size is seen whole."""


@dataclass(frozen=True)
class MambaMoEConfig(MapConfig):
    """Everything that makes a :class:`MambaMoE`.

    Attributes:
        width: channels of the features; divisible by ``groups``.
        inner: channels that each direction's state space works on, of rows, rows reversed, columns, columns
            reversed.
        state: numbers of a state.
        spectral: channels of the state spaces along the features' channels.
        spectral_state: numbers of theirs.
        top_k: directions for each scene.
        windows: side of the windows that are each given directions of their own, in pixels of the features;
            0 for one choice for the whole scene, as in the paper.
        head: channels inside what says the classes; divisible by ``groups``.
        groups: of the norms.
        twin: what replaces the mixtures of directions; see :data:`geomoe.models.twin.Twin`.
    """

    width: int = 64
    inner: tuple[int, ...] = (2, 4, 8, 16)
    state: int = 16
    spectral: int = 2
    spectral_state: int = 16
    top_k: int = 2
    windows: int | Literal[0] = 0
    head: int = 128
    groups: int = 4
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("groups", self.groups, "width", self.width)
        check_divides("groups", self.groups, "head", self.head)
        if len(self.inner) != len(get_args(Direction)):
            raise ValueError(f"inner={self.inner!r}: expected one number for each of four directions")


class DirectionExpert(GatedScan):
    """Scans ``[B, C + 1, H, W]`` in one direction; the last channel is 1 where there is a pixel."""

    def __init__(self, channels: int, inner: int, state: int, direction: Direction) -> None:
        super().__init__(channels, inner, state, nn.Conv2d(inner, inner, 3, padding=1, groups=inner))
        self.direction: Direction = direction

    def forward(self, x: Tensor) -> Tensor:
        x, there = x[:, :-1], x[:, -1:]
        value, gate = self.enter(x.movedim(1, -1)).chunk(2, -1)
        value = F.silu(self.conv(value.movedim(-1, 1) * there)).flatten(2).transpose(1, 2)  # [B, L, inner]
        order = scan_order(self.direction, x.shape[2], x.shape[3], x.device)
        scanned = self.scan(in_order(value, order), there.flatten(1)[:, order] > 0)
        back = in_order(scanned, order, undo=True).unflatten(1, x.shape[2:])
        return self.finish(back, gate).movedim(-1, 1)


class Spectral(GatedScan):
    """Scans the channels of each pixel of ``[B, C, H, W]``, by the same parameters, forwards or backwards."""

    def __init__(self, inner: int, state: int, backwards: bool) -> None:
        super().__init__(1, inner, state, nn.Conv1d(inner, inner, 3, padding=1, groups=inner))
        self.backwards = backwards

    def forward(self, x: Tensor) -> Tensor:
        rows = x.movedim(1, -1).flatten(0, 2).unsqueeze(-1)  # [pixels, C, 1]
        rows = rows.flip(1) if self.backwards else rows
        value, gate = self.enter(rows).chunk(2, -1)
        value = F.silu(self.conv(value.transpose(1, 2))).transpose(1, 2)
        out = self.finish(self.scan(value), gate).squeeze(-1)
        out = out.flip(1) if self.backwards else out
        return out.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


class SpectralSpatial(nn.Module):
    """Half of the channels through the spectral pair, half through the directions that the gate chose."""

    def __init__(self, c: MambaMoEConfig) -> None:
        super().__init__()
        self.windows, width = c.windows, c.width
        self.enter, self.leave = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)
        self.spectral = nn.ModuleList(Spectral(c.spectral, c.spectral_state, b) for b in (False, True))
        experts = [
            DirectionExpert(width, inner, c.state, direction)
            for inner, direction in zip(c.inner, get_args(Direction), strict=True)
        ]
        router = Router(LinearScore(width, len(experts)), TopK(c.top_k, "soft"))
        self.spatial = twin_of(MoE(router, ModuleExperts(experts)), c.twin)

    def forward(self, x: Tensor, there: Tensor, trace: RoutingTrace | None) -> Tensor:
        spectral, spatial = self.enter(x).chunk(2, 1)
        spectral = torch.stack([scan(spectral) for scan in self.spectral]).sum(0)
        out: Tensor = self.leave(torch.cat([spectral, self._routed(spatial, there, trace)], 1))
        return out

    def _routed(self, x: Tensor, there: Tensor, trace: RoutingTrace | None) -> Tensor:
        rows, grid = torch.cat([x, there], 1), x.shape[:1]
        if self.windows:
            missing = [-size % self.windows for size in x.shape[2:]]
            rows = F.pad(rows, (0, missing[1], 0, missing[0]))
            grid = torch.Size([len(x), *(size // self.windows for size in rows.shape[2:])])
            rows = rows.unflatten(3, (-1, self.windows)).unflatten(2, (-1, self.windows))
            rows = rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # [B * windows, C + 1, side, side]
        seen = rows[:, -1:]
        pixels = seen.sum((2, 3))
        signal = (rows[:, :-1] * seen).sum((2, 3)) / pixels.clamp_min(1)
        y: Tensor = self.spatial(rows, signal, grid=tuple(grid), valid=pixels[:, 0] > 0, trace=trace)
        if self.windows:
            y = y.unflatten(0, tuple(grid)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return crop_to(y, x)


class Block(nn.Module):
    """``x s1 + mix(LN x)``, then ``x s2 + MLP(LN x)``."""

    def __init__(self, c: MambaMoEConfig) -> None:
        super().__init__()
        width = c.width
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(width, 1, 1)) for _ in range(2))
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(2))
        self.mix = SpectralSpatial(c)
        self.mlp = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1))

    def forward(self, x: Tensor, there: Tensor, trace: RoutingTrace | None) -> Tensor:
        x = x * self.scales[0] + self.mix(self.norms[0](x), there, trace)
        out: Tensor = x * self.scales[1] + self.mlp(self.norms[1](x))
        return out


class Enter(nn.Module):
    """To ``width`` channels, and half the size by the mean of the pixels that there are."""

    def __init__(self, bands: int, c: MambaMoEConfig) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(bands, c.width, 1), ValidGroupNorm(c.groups, c.width)

    def forward(self, x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.norm(self.conv(x), there))
        share = F.avg_pool2d(there, 2)
        return F.avg_pool2d(y * there, 2) / share.clamp_min(0.25), (share > 0).to(x.dtype)


class Head(nn.Module):
    """Features to logits."""

    def __init__(self, c: MambaMoEConfig) -> None:
        super().__init__()
        self.inside, self.norm = nn.Conv2d(c.width, c.head, 1), ValidGroupNorm(c.groups, c.head)
        self.out = nn.Conv2d(c.head, len(c.classes), 1)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        logits: Tensor = self.out(F.silu(self.norm(self.inside(x), there)))
        return logits


def uncertain_labels(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy of every size of answer on the labels that it is not sure of, added up.

    A label takes part with the probability of its pixel's uncertainty, the entropy of the answer over the
    logarithm of the classes, brought to 0..1 over each scene. Drawn anew each time.

    Args:
        answers: logits ``[B, K, H, W]`` by name.
        truth: ``[B, H, W]`` int64, below 0 where there is no class.
    """
    total = torch.zeros((), device=truth.device)
    for logits in answers.values():
        p = logits.detach().float().softmax(1)
        u = torch.special.entr(p).sum(1) / math.log(p.shape[1])  # [B, H, W]
        least, most = u.amin((1, 2), keepdim=True), u.amax((1, 2), keepdim=True)
        u = (u - least) / (most - least).clamp_min(1e-6)
        kept = (truth >= 0) & (torch.rand_like(u) < u)
        each = F.cross_entropy(logits.float(), truth.clamp_min(0), reduction="none") * kept
        total = total + (each.sum((1, 2)) / kept.sum((1, 2)).clamp_min(1)).mean()
    return total


class MambaMoE(nn.Module):
    """Says of every pixel of a scene what it shows; every pixel sees the whole scene.

    Example:
        >>> import torch
        >>> from geomoe.models.mamba_moe import MambaMoE, MambaMoEConfig
        >>> model = MambaMoE(MambaMoEConfig(bands=8, classes=("field", "water"), width=8, inner=(2, 2, 2, 2)))
        >>> model(torch.rand(1, 8, 19, 17)).shape
        torch.Size([1, 2, 19, 17])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "uncertain_labels": uncertain_labels
    }
    """Losses of its own, of what :meth:`answers` gives and the truth."""

    def __init__(self, config: MambaMoEConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.enter = nn.ModuleList(Enter(c.width if i else c.bands, c) for i in range(len(_SIZES)))
        self.blocks = nn.ModuleList(Block(c) for _ in _SIZES)
        self.refine = nn.ModuleList(ResidualUnit(c.width) for _ in _SIZES)
        self.heads = nn.ModuleList(Head(c) for _ in _SIZES)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        tiling = Tiling(multiple=_CELLS, tile=_TILE, margin=4 * _CELLS, reach=None)
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling)

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits ``[B, classes, H, W]`` of each size, the finest first, by the names half, quarter, eighth.

        Args:
            x: ``[B, bands, H, W]``, of any size.
            trace: if given, the plans of the three sizes are appended to it, the finest first; a row is a
                scene, or a window of it.
            valid: ``[B, H, W]`` bool, the pixels that there are.
        """
        there = x.new_ones(len(x), 1, *x.shape[2:]) if valid is None else valid[:, None].to(x.dtype)
        y = self.normalise(x)
        y = y if valid is None else y.masked_fill(~valid[:, None], 0)
        height, width = (-size % _CELLS for size in x.shape[2:])
        y, there = pad_to_multiple(y, _CELLS), F.pad(there, (0, width, 0, height))
        features, present = [], []
        for enter, block in zip(self.enter, self.blocks, strict=True):
            y, there = enter(y, there)
            y = block(y, there, trace)
            features.append(y)
            present.append(there)
        found: dict[str, Tensor] = {}
        above: Tensor | None = None
        for level in reversed(range(len(_SIZES))):
            above = features[level] if above is None else features[level] + _twice(above)
            above = self.refine[level](above)
            logits = self.heads[level](above, present[level])
            size = [side * 2 ** (level + 1) for side in logits.shape[2:]]
            found[_SIZES[level]] = crop_to(F.interpolate(logits, size, mode="bilinear"), x)
        return {name: found[name] for name in _SIZES}

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits ``[B, classes, H, W]`` of the finest size; see :meth:`answers`."""
        return self.answers(x, trace, valid)[_SIZES[0]]


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


register("mamba_moe", MambaMoE, MambaMoEConfig, gives="classes")
