"""ConvNeXt, a plain convolutional network; with mixtures of experts in the place of its 1x1 convolutions.

Liu et al., CVPR 2022. A block's two 1x1 convolutions are the feed-forward layer of a transformer's block;
``convnext_moe_t`` has it sparse in every second block, as V-MoE (Riquelme et al. 2021); tokens are pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geomoe.layers.hybrid import DropPath, drop_paths
from geomoe.layers.windows import pad_to_multiple
from geomoe.models.contract import ModelContract
from geomoe.models.label import Head, Normalise, label_contract
from geomoe.models.registry import register
from geomoe.models.sample_moe import MIXERS, SAMPLE_ROUTERS, SampleMoE
from geomoe.models.sparse_ffn import SparseConfig, check_router, feed_forward
from geomoe.moe.plan import RoutingTrace

__all__ = ["ConvNext", "ConvNextConfig"]

_FIRST_SCALE = 1e-6
"""Of every block's branch, at the start of training (the paper, section 2.6, after Touvron et al. 2021)."""
_EPS = 1e-6


@dataclass(frozen=True)
class ConvNextConfig(SparseConfig):
    """Everything that makes a :class:`ConvNext`. The defaults are ConvNeXt-T's.

    Attributes:
        patch: side of the square of pixels that the first convolution takes at a time.
        depths: blocks of each stage; between two stages the grid is halved.
        widths: channels of each stage.
        kernel: side of the depthwise convolutions, odd.
        mixers: experts in the place of each depthwise convolution, between which ``router`` chooses for each
            image: names of :data:`geomoe.models.sample_moe.MIXERS`. None for the convolution alone.
    """

    patch: int = 4
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    kernel: int = 7
    mixers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) != len(self.widths):
            raise ValueError(f"widths={self.widths!r}: expected as many as depths={self.depths!r}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}: expected an odd number")
        if any(name not in MIXERS for name in self.mixers):
            raise ValueError(f"mixers={self.mixers!r}: expected some of {', '.join(MIXERS)}")
        if self.mixers:
            check_router(self.router, self.router_options, SAMPLE_ROUTERS)


class Block(nn.Module):
    """``x + s FFN(LN(depthwise(x)))``, s a factor for each channel; on ``[B, H, W, C]``."""

    def __init__(self, c: ConvNextConfig, channels: int, number: int, drop_path: float) -> None:
        super().__init__()
        self.depthwise: nn.Module
        if c.mixers:
            router = SAMPLE_ROUTERS[c.router](2 * channels, len(c.mixers), **c.router_options)
            self.depthwise = SampleMoE(router, [MIXERS[name](channels) for name in c.mixers], c.twin)
        else:
            self.depthwise = nn.Conv2d(channels, channels, c.kernel, padding=c.kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, _EPS)
        self.ffn = feed_forward(c, channels, number, sum(c.depths))
        self.scale = nn.Parameter(torch.full((channels,), _FIRST_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        y = x.permute(0, 3, 1, 2)
        y = self.depthwise(y, trace) if isinstance(self.depthwise, SampleMoE) else self.depthwise(y)
        y = self.norm(y.permute(0, 2, 3, 1))
        return x + self.drop_path(self.scale * self.ffn(y, trace))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """What halves the grid, but in the first stage, then blocks."""

    def __init__(self, c: ConvNextConfig, number: int, drops: list[float]) -> None:
        super().__init__()
        width, first = c.widths[number], sum(c.depths[:number])
        self.norm = nn.LayerNorm(c.widths[number - 1], _EPS) if number else None
        self.halve = nn.Conv2d(c.widths[number - 1], width, 2, 2) if number else None
        self.blocks = nn.ModuleList(Block(c, width, first + i, p) for i, p in enumerate(drops))

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        if self.halve is not None and self.norm is not None:
            x = self.halve(pad_to_multiple(self.norm(x).permute(0, 3, 1, 2), 2)).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, trace)
        return x


class ConvNext(nn.Module):
    """Says what a whole image shows.

    Example:
        >>> import torch
        >>> from geomoe.models.convnext import ConvNext, ConvNextConfig
        >>> model = ConvNext(ConvNextConfig(classes=("forest", "river"), depths=(1, 1), widths=(8, 16)))
        >>> model(torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 2])
    """

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.embed = nn.Conv2d(c.bands, c.widths[0], c.patch, c.patch)
        self.norm_in = nn.LayerNorm(c.widths[0], _EPS)
        self.groups = nn.ModuleList(
            Stage(c, number, drops) for number, drops in enumerate(drop_paths(c.drop_path, c.depths))
        )
        self.norm = nn.LayerNorm(c.widths[-1], _EPS)
        self.head = Head(c, c.widths[-1])

    @property
    def contract(self) -> ModelContract:
        return label_contract(self.config, self.config.widths[-1])

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Logits, or features of a network without classes.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size; continued to whole patches by mirroring.
            trace: if given, the plan of every mixture is appended to it; rows are pixels of its grid, of
                mixers and of a committee images.

        Returns:
            ``[B, classes]``, or ``[B, widths[-1]]``.
        """
        pixels = self.norm_in(
            self.embed(pad_to_multiple(self.normalise(x), self.config.patch)).permute(0, 2, 3, 1)
        )
        for stage in self.groups:
            pixels = stage(pixels, trace)
        out: Tensor = self.head(self.norm(pixels.mean((1, 2))), trace)
        return out


register(
    "convnext_t",
    ConvNext,
    ConvNextConfig,
    gives="label",
    what="ConvNeXt, a plain convolutional network; no experts",
)
register("convnext_moe_t", ConvNext, ConvNextConfig, {"sparse": "every_2"}, gives="label")
register(
    "convnext_mixers_t",
    ConvNext,
    ConvNextConfig,
    {"mixers": tuple(MIXERS), "router": "softmax"},
    gives="label",
)
