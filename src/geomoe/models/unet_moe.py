"""UNetMoE: a U-Net for each class, which tells it from the rest, and a gate that weighs what they say.

Ren et al., as the survey of mixtures of experts in remote sensing tells it (its reference 119); neither paper
nor program could be had, and unrelated programs have the same name. From there: one expert for each class,
trained for binary classification of its class, and a ResNet with self-attention that allots weights to the
outputs of all experts.

Assumed: everything in numbers; the house's U-Net; a weight for each pixel and class, from an eighth of the
image's size; the mixture ``p_k = g_k q_k / sum_j g_j q_j`` of what expert k says of its class, q, and the
gate's softmax, g; the experts' loss, cross-entropy and Dice, and stages: experts, gate, then both at a tenth
of the learning rate. The experts learn side by side: as they share nothing, that is the same as one after the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.norms import ChannelNorm
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig, check_divides
from geomoe.models.registry import register
from geomoe.models.stages import Stage
from geomoe.models.twin import Twin, nearest_width
from geomoe.models.unet import UNet, UNetConfig
from geomoe.moe import AllExperts, GivenScore, Pixels, Router
from geomoe.moe.plan import RoutingTrace

__all__ = ["UNetMoE", "UNetMoEConfig", "one_against_rest"]

_TILE = 256


@dataclass(frozen=True)
class UNetMoEConfig(MapConfig):
    """Everything that makes a :class:`UNetMoE`.

    Attributes:
        width: of the experts, which are as :class:`geomoe.models.unet.UNet`.
        depth: of the experts.
        gate: widths of the gate's blocks, each of which halves the grid.
        heads: of the gate's attention; divide its last width.
        twin: one U-Net for all classes with as many parameters as all experts and the gate (``active`` and
            ``parameters``: each pixel is seen by all), or a gate that keeps its random start (``frozen``).
    """

    width: int = 8
    depth: int = 3
    gate: tuple[int, ...] = (16, 32, 64)
    heads: int = 4
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "gate[-1]", self.gate[-1])
        if self.twin == "gated":
            raise ValueError("twin='gated': one expert's weights would all be 1; choose another twin")

    @property
    def cells(self) -> int:
        """Pixels on a side that experts and gate see as one at their coarsest."""
        return int(2 ** max(self.depth, len(self.gate)))

    def expert(self, width: int, classes: tuple[str, ...] = ("0", "1")) -> UNetConfig:
        """Of a U-Net; of two classes by default, the rest and the expert's own."""
        return UNetConfig(
            bands=self.bands, classes=classes, mean=self.mean, std=self.std, width=width, depth=self.depth
        )


class Residual(nn.Module):
    """``gelu(f(x) + shortcut(x))`` on half the grid (He et al. 2016)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, width, 2), ChannelNorm(width), nn.GELU(), conv3x3(width, width),
            ChannelNorm(width),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(channels, width, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.body(x) + self.shortcut(x))


class Gate(nn.Module):
    """Logits of the experts ``[B, K, H, W]``, of an image ``[B, bands, H, W]`` of whole cells."""

    def __init__(self, c: UNetMoEConfig) -> None:
        super().__init__()
        width, self.heads = c.gate[-1], c.heads
        self.blocks = nn.ModuleList(map(Residual, (c.bands, *c.gate), c.gate))
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.project, self.head = nn.Linear(width, width), nn.Conv2d(width, len(c.classes), 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y)
        tokens = y.flatten(2).transpose(1, 2)  # [B, T, C]
        q, k, v = self.qkv(self.norm(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v)  # [B, heads, T, C / heads]
        seen = self.project(seen.transpose(1, 2).flatten(2)).transpose(1, 2)
        logits = self.head(y + seen.unflatten(2, y.shape[2:]))
        return F.interpolate(logits, x.shape[2:], mode="bilinear")


def one_against_rest(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Binary cross-entropy and 1 less Dice of every expert, whose class is all that it is told, added up.

    Args:
        answers: ``experts``, logits ``[B, K, H, W]``.
        truth: ``[B, H, W]`` int64, below 0 where there is no class; of the other pixels the mean is taken,
            and over samples. Dice is of the classes that a sample has.
    """
    said, known = answers["experts"].float(), (truth >= 0)[:, None]
    own = F.one_hot(truth.clamp_min(0), said.shape[1]).movedim(-1, 1) * known.float()
    each = F.binary_cross_entropy_with_logits(said, own, reduction="none") * known
    entropy = each.sum((2, 3)) / known.sum((2, 3)).clamp_min(1)  # [B, K]
    shares = said.sigmoid() * known
    both, either = (shares * own).sum((2, 3)), (shares + own).sum((2, 3))
    dice = (1 - 2 * both / either.clamp_min(1e-6)) * own.amax((2, 3))
    return (entropy + dice).sum(1).mean()


class UNetMoE(nn.Module):
    """Says of every pixel what it shows; the weights of its experts depend on the whole image.

    Example:
        >>> import torch
        >>> from geomoe.models.unet_moe import UNetMoE, UNetMoEConfig
        >>> model = UNetMoE(UNetMoEConfig(classes=("field", "water"), width=4, depth=2))
        >>> model(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
    """

    def __init__(self, config: UNetMoEConfig) -> None:
        super().__init__()
        c = self.config = config
        self.dense = c.twin in ("active", "parameters")
        if self.dense:
            self.experts = nn.ModuleList([UNet(c.expert(_twin_width(c), c.classes))])
            return
        self.experts = nn.ModuleList(UNet(c.expert(c.width)) for _ in c.classes)
        self.normalise, self.gate = Normalise(c), Gate(c)
        self.router = Router(GivenScore(len(c.classes)), AllExperts())
        if c.twin == "frozen":
            self.gate.requires_grad_(False)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        margin, tile = (-(-size // c.cells) * c.cells for size in (c.expert(c.width).reach, _TILE))
        tiling = Tiling(multiple=c.cells, tile=tile, margin=margin)
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Experts, gate, both; a dense twin is trained in one."""
        if self.dense:
            return ()
        experts = Stage("experts", 4, ("experts",), {"one_against_rest": 1.0})
        gate = Stage("gate", 6, ("gate",))
        joint = Stage("joint", 3, rate=0.1)
        return (experts, joint) if self.config.twin == "frozen" else (experts, gate, joint)

    @property
    def objectives(self) -> Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
        """Losses of its own, of what :meth:`answers` gives and the truth."""
        return {} if self.dense else {"one_against_rest": one_against_rest}

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits ``[B, K, H, W]``: ``classes``, whose softmax is the mixture, and ``experts``, of each alone.

        Args:
            x: ``[B, bands, H, W]``, of any size.
            trace: if given, the plan is appended to it; its rows are pixels, expert k is of class k.
            valid: ``[B, H, W]`` bool, the pixels that there are: the others are seen as the mean of their
                band, and have no experts.
        """
        if self.dense:
            return {"classes": self.experts[0](x, valid=valid)}
        pairs = [expert(x, valid=valid) for expert in self.experts]
        said = torch.stack([both[:, 1] - both[:, 0] for both in pairs], 1)
        y = self.normalise(x)
        y = y if valid is None else y.masked_fill(~valid[:, None], 0)
        logits = crop_to(self.gate(pad_to_multiple(y, self.config.cells)), x)
        return {"classes": self._mixed(said, logits, trace, valid), "experts": said}

    def _mixed(
        self, said: Tensor, logits: Tensor, trace: RoutingTrace | None, valid: Tensor | None
    ) -> Tensor:
        """Logarithms of ``g q``, of both of which logits are given, ``[B, K, H, W]``."""
        pixels = Pixels.of(logits)
        rows, there = pixels.to_rows(logits), None if valid is None else valid.flatten()
        plan = self.router(rows, pixels.grid, valid=there)
        plan = plan if trace is None else trace.record(plan, self.router, rows)
        weights = pixels.from_rows(plan.gates)
        return weights.clamp_min(torch.finfo(weights.dtype).tiny).log() + F.logsigmoid(said.float())

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits of the mixture; see :meth:`answers`."""
        return self.answers(x, trace, valid)["classes"]


def _twin_width(c: UNetMoEConfig) -> int:
    """Of the one U-Net that has about as many parameters as all experts and the gate."""
    with torch.device("meta"):

        def size(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters())

        wanted = len(c.classes) * size(UNet(c.expert(c.width))) + size(Gate(c))
        widths = range(c.width, c.width * (len(c.classes) + 2))
        return nearest_width(widths, lambda width: size(UNet(c.expert(width, c.classes))), wanted)


register("unet_moe", UNetMoE, UNetMoEConfig, gives="classes")
