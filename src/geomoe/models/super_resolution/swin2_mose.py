"""Swin2-MoSE: window attention whose every feed-forward layer is a mixture of experts, one decision an image.

Rossi et al., "Swin2-MoSE: A New Single Image Super-Resolution Model for Remote Sensing", IET Image
Processing 2025. Blocks of Swin V2 (cosine attention, normalised residuals) with a locally enhanced position
encoding, and MoE-SM for the MLP: the best two of 8 experts by the mean of an image's tokens ("per example"),
their results merged by a convolution (the smart merger).

The same function as the authors' program. Its merger reads the chosen experts' results as the bands of a
picture whose rows are the tokens, in reading order, and whose columns are the channels: 19 parameters that
mix each channel with the next and each token with the one before and after it, across the ends of rows. All
gates start equal, so that at first every image is given the same two experts; while training, ``noise`` lets
others be tried, which the program can do and by default does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geomoe.layers.attention import CosineWindowAttention
from geomoe.layers.convolution import BandMean, conv3x3
from geomoe.layers.hybrid import Conv3x3, DropPath, drop_paths
from geomoe.layers.windows import crop_to, pad_to_windows
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import AttentionConfig
from geomoe.models.registry import register
from geomoe.models.sparse_ffn import DenseFFN, dense_twin
from geomoe.models.twin import GatedTwin, Twin
from geomoe.moe.dispatch.run import dispatch
from geomoe.moe.experts.rows import FeedForwardExperts
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.choice import TopK
from geomoe.moe.routing.published import noisy_top_k_router
from geomoe.moe.routing.router import Router
from geomoe.moe.routing.score import LinearScore

__all__ = ["Swin2Mose", "Swin2MoseConfig"]


@dataclass(frozen=True)
class Swin2MoseConfig(AttentionConfig):
    """Everything that makes a :class:`Swin2Mose`. The defaults are the release's.

    Attributes:
        mlp_ratio: hidden width of one expert over ``embed_dim``.
        num_experts: E of every layer.
        top_k: experts that an image is given, 2 or more.
        noise: whether the choice is noisy while training (Shazeer et al. 2017).
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    embed_dim: int = 90
    depths: tuple[int, ...] = (6, 6, 6, 6)
    mlp_ratio: float = 1.0
    num_experts: int = 8
    top_k: int = 2
    noise: bool = False
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k={self.top_k}: expected at most num_experts={self.num_experts}")


class MoeSm(nn.Module):
    """MoE-SM: each image's tokens through the experts chosen for the image, merged by a convolution."""

    def __init__(self, c: Swin2MoseConfig) -> None:
        super().__init__()
        if c.noise:
            self.router = noisy_top_k_router(c.embed_dim, c.num_experts, c.top_k)
        else:
            score = LinearScore(c.embed_dim, c.num_experts, gain=0)
            self.router = Router(score, TopK(c.top_k, "normalised"))
        self.bank = FeedForwardExperts(c.embed_dim, max(int(c.embed_dim * c.mlp_ratio), 1), c.num_experts)
        self.merger = conv3x3(c.top_k, 1)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        """``[B, H, W, C]`` to the same shape; the plan has a row for each image."""
        batch, height, width, dim = x.shape
        signals = x.mean((1, 2))
        plan = self.router(signals, (batch,))
        plan = plan if trace is None else trace.record(plan, self.router, signals)
        image = torch.arange(batch, device=x.device).repeat_interleave(height * width)
        spread, rows = plan.spread(image, (batch, height, width)), x.reshape(-1, dim)
        results = [
            dispatch(self.bank, rows, spread.choice(j)).view(batch, -1, dim) for j in range(plan.top_k)
        ]
        # The merger knows the choices by their experts' numbers, the lowest first, not by which is best.
        order = plan.experts.argsort(1)[:, :, None, None]
        picture = torch.stack(results, 1).take_along_dim(order, 1)  # [B, k, H * W, C]
        out: Tensor = self.merger(picture)
        return out.view(x.shape)


class GatedFFN(nn.Module):
    """One feed-forward layer for all images, times the sum of the gates that each would be given."""

    def __init__(self, moe: MoeSm, dense: DenseFFN) -> None:
        super().__init__()
        self.gated = GatedTwin(moe.router, dense)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        """As :class:`MoeSm`."""
        return self.gated(x, x.mean((1, 2)), grid=x.shape[:1], trace=trace)  # type: ignore[no-any-return]


def _feed_forward(c: Swin2MoseConfig) -> MoeSm | GatedFFN | DenseFFN:
    """MoE-SM, or its twin."""
    moe = MoeSm(c)
    if c.twin == "frozen":
        moe.router.requires_grad_(False)
    if c.twin in ("none", "frozen"):
        return moe
    dense = dense_twin(moe, c.twin, c.embed_dim)
    return GatedFFN(moe, dense) if c.twin == "gated" else dense


class Block(nn.Module):
    """``x + LN(attention(x))``, then ``x + LN(MoE-SM(x))``: residuals are normalised after, as in Swin V2."""

    def __init__(self, c: Swin2MoseConfig, shift: int, drop_path: float) -> None:
        super().__init__()
        self.attention = CosineWindowAttention(c.embed_dim, c.heads, c.window, shift)
        self.norm1 = nn.LayerNorm(c.embed_dim)
        self.experts = _feed_forward(c)
        self.norm2 = nn.LayerNorm(c.embed_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        x = x + self.drop_path(self.norm1(self.attention(x)))
        return x + self.drop_path(self.norm2(self.experts(x, trace)))  # type: ignore[no-any-return]


class Group(nn.Module):
    """Blocks with shifts 0 and half a window in turn, a 3x3 and a 1x1 convolution, a skip."""

    def __init__(self, c: Swin2MoseConfig, drops: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(c, (i % 2) * (c.window // 2), p) for i, p in enumerate(drops))
        self.conv = Conv3x3(c.embed_dim, c.embed_dim)
        self.patches = nn.Linear(c.embed_dim, c.embed_dim)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, trace)
        out: Tensor = x + self.patches(self.conv(y))
        return out


class Swin2Mose(nn.Module):
    """Super-resolution with experts chosen for the whole image in every block.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.swin2_mose import Swin2Mose, Swin2MoseConfig
        >>> model = Swin2Mose(Swin2MoseConfig(scale=2, embed_dim=12, depths=(2,), heads=2, window=4))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: Swin2MoseConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean)
        self.shallow = conv3x3(c.bands, c.embed_dim)
        self.patches = nn.Linear(c.embed_dim, c.embed_dim)
        self.norm_in = nn.LayerNorm(c.embed_dim)
        self.groups = nn.ModuleList(Group(c, drops) for drops in drop_paths(c.drop_path, c.depths))
        self.norm_out = nn.LayerNorm(c.embed_dim)
        self.deep = conv3x3(c.embed_dim, c.embed_dim)
        self.head = nn.Sequential(conv3x3(c.embed_dim, c.bands * c.scale**2), nn.PixelShuffle(c.scale))
        for module in self.groups.modules():
            if isinstance(module, CosineWindowAttention):
                nn.init.trunc_normal_(module.qkv.weight, std=0.02)
                nn.init.trunc_normal_(module.proj.weight, std=0.02)
                nn.init.zeros_(module.proj.bias)
            elif isinstance(module, FeedForwardExperts):
                for name, parameter in module.named_parameters():
                    if name.endswith("bias"):
                        nn.init.zeros_(parameter)
                    else:
                        nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def contract(self) -> ModelContract:
        # The whole image decides: a tile is routed by what it sees.
        c = self.config
        return ModelContract.of_images(c.scale, c.bands, Tiling(c.window, c.tile, 2 * c.window))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1]; H and W at least 1.
            trace: if given, the plan of every block is appended to it; their grid is ``(B,)``.

        Returns:
            ``[B, bands, scale * H, scale * W]`` in the units of ``x``, not clipped.
        """
        c = self.config
        shallow = self.shallow(self.mean.subtract(pad_to_windows(x, c.window, c.border)))
        tokens = self.norm_in(self.patches(shallow.permute(0, 2, 3, 1)))
        for group in self.groups:
            tokens = group(tokens, trace)
        features = self.deep(self.norm_out(tokens).permute(0, 3, 1, 2)) + shallow
        if c.border == "features":
            features = crop_to(features, x)
        out = crop_to(self.head(features), x, c.scale)
        return self.mean.add(out)


register("swin2_mose", Swin2Mose, Swin2MoseConfig)
