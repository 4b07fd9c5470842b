"""Siamese MoE: what burned between two dates, by experts that are convolutions, and attention to both dates.

Seydi, Hasanlou, Chanussot, "A novel deep Siamese framework for burned area mapping leveraging mixture of
experts", Engineering Applications of Artificial Intelligence, 2024, doi 10.1016/j.engappai.2024.108280, as
the survey tells it; no program could be had. From there: one channel of features for each date; layers whose
experts are convolutions, by a gate that looks at the surroundings of a pixel; position and channel attention;
a dense mixture that classifies.

Assumed: the patch; weights that both dates share (a first layer of its own for each where they have unlike
bands); four unlike experts, 1x1, 3x3, 5x5 and 3x3 of every second pixel; the gate, a softmax of a 3x3
convolution, the two largest made to add up to 1, without noise; ``[f1, f2, |f1 - f2|]``; attention as of
DANet; all sizes. One norm over channels and one ReLU follow the mixture, and not each expert, so that nothing
depends on which pixels an expert was given; the convolutions are run once for all patches, so that those at a
patch's edge see true neighbours; and beside the mean over a patch the classifier sees its middle, which the
mean says nothing of.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.gates import DualAttention
from geomoe.layers.norms import ChannelNorm
from geomoe.models.patch_map import SensorPatchConfig, SensorPatchMap
from geomoe.models.registry import register
from geomoe.models.spatial_moe import SpatialTwin, route_pixels
from geomoe.models.twin import EvenExperts, GatedTwin, Twin, twin_of
from geomoe.moe import (
    AllExperts,
    ConvExperts,
    GivenScore,
    HeterogeneousBank,
    LinearScore,
    ModuleExperts,
    MoE,
    Router,
    TopK,
)
from geomoe.moe.plan import RoutingTrace

__all__ = ["ConvolutionMoE", "SiameseMoE", "SiameseMoEConfig"]

_EXPERTS = ((1, 1), (3, 1), (5, 1), (3, 2))
"""Kernel and dilation of each expert."""
_REACH = 2
"""Pixels that the widest of them sees beyond its own."""


@dataclass(frozen=True)
class SiameseMoEConfig(SensorPatchConfig):
    """Everything that makes a :class:`SiameseMoE`.

    Attributes:
        sensors: bands of the first and of the second date.
        stem: channels of the first layer.
        widths: of the layers of convolution experts.
        top_k: experts of each pixel there.
        experts: of the dense mixture.
        hidden: width inside of each of these.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    patch: int = 11
    stem: int = 32
    widths: tuple[int, ...] = (32, 64)
    top_k: int = 2
    experts: int = 4
    hidden: int = 64
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sensors) != 2:
            raise ValueError(f"sensors={dict(self.sensors)!r}: expected two, before and after")
        if not 1 <= self.top_k <= len(_EXPERTS):
            raise ValueError(f"top_k={self.top_k}: expected 1 to {len(_EXPERTS)}")
        if self.twin == "gated":
            raise ValueError("twin='gated': gates add up to 1, so that it would be twin='active'")

    @property
    def reach(self) -> int:
        """Of the patch and of the convolutions before it."""
        return self.patch // 2 + _REACH * len(self.widths)


class ConvolutionMoE(nn.Module):
    """Each pixel of ``[B, C, H, W]`` by some of four unlike convolutions, then a norm and ReLU.

    Args:
        channels: C.
        outputs: of the result.
        top_k: experts of each pixel.
        twin: what replaces the mixture.
    """

    def __init__(self, channels: int, outputs: int, top_k: int, twin: Twin = "none") -> None:
        super().__init__()
        number = len(_EXPERTS)
        bank = HeterogeneousBank([ConvExperts(channels, outputs, k, 1, d) for k, d in _EXPERTS])
        moe = MoE(Router(GivenScore(number), TopK(top_k, "soft" if top_k == 1 else "normalised")), bank)
        self.gate: nn.Module | None = None
        self.moe: MoE | GatedTwin | EvenExperts | SpatialTwin
        if twin in ("active", "parameters"):
            gate = number * (9 * channels + 1)
            self.moe = SpatialTwin(moe, twin, channels, outputs, gate)
        else:
            self.gate, self.moe = conv3x3(channels, number), twin_of(moe, twin)
            self.gate.requires_grad_(twin != "frozen")
        self.norm = ChannelNorm(outputs)

    def forward(self, x: Tensor, valid: Tensor | None = None, trace: RoutingTrace | None = None) -> Tensor:
        """``[B, outputs, H, W]``, 0 where ``valid`` ``[B, H, W]`` says that there is nothing."""
        if isinstance(self.moe, SpatialTwin):
            mixed = self.moe(x)
        else:
            assert self.gate is not None
            mixed = route_pixels(self.moe, x, self.gate(x), valid, trace)
        out: Tensor = self.norm(mixed).relu()
        return out if valid is None else out * valid[:, None]


class SiameseMoE(SensorPatchMap):
    """Says of every pixel what happened between two dates.

    Example:
        >>> import torch
        >>> from geomoe.models.siamese_moe import SiameseMoE, SiameseMoEConfig
        >>> sensors = {"before": 4, "after": 4}
        >>> config = SiameseMoEConfig(bands=8, sensors=sensors, classes=("still", "burned"), widths=(8, 8))
        >>> SiameseMoE(config).eval()(torch.rand(1, 8, 6, 4)).shape
        torch.Size([1, 2, 6, 4])
    """

    config: SiameseMoEConfig

    def __init__(self, config: SiameseMoEConfig) -> None:
        super().__init__(config)
        c, numbers = config, tuple(config.sensors.values())
        first = nn.Conv2d(numbers[0], c.stem, 1)
        self.stems = nn.ModuleList([first, nn.Conv2d(numbers[1], c.stem, 1)][: len(set(numbers))])
        layers = [ConvolutionMoE(a, b, c.top_k, c.twin) for a, b in pairwise((c.stem, *c.widths))]
        self.blocks = nn.ModuleList(layers)
        joint = 3 * c.widths[-1]
        self.attention = DualAttention(joint)
        heads = [
            nn.Sequential(nn.Linear(2 * joint, c.hidden), nn.ReLU(), nn.Linear(c.hidden, len(c.classes)))
            for _ in range(c.experts)
        ]
        self.decide = twin_of(
            MoE(Router(LinearScore(2 * joint, c.experts), AllExperts()), ModuleExperts(heads)), c.twin
        )

    def features(self, x: Tensor, date: int, there: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        """``[B, C, H, W]`` of the bands of one date, 0 where it is not ``there``, ``[B, H, W]``."""
        y = self.stems[min(date, len(self.stems) - 1)](x)
        y = y if there is None else y * there[:, None]
        for layer in self.blocks:
            y = layer(y, there, trace)
        return y  # type: ignore[no-any-return]

    def of_image(self, x: Tensor, there: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        """Features of both dates, one after the other."""
        dates = x.split(list(self.config.sensors.values()), 1)
        of = [None, None] if there is None else there.unbind(1)
        return torch.cat([self.features(d, i, of[i], trace) for i, d in enumerate(dates)], 1)

    def joint(self, patches: Tensor) -> Tensor:
        """``[f1, f2, |f1 - f2|]`` of features of both dates."""
        before, after = patches.chunk(2, 1)
        return torch.cat([before, after, (before - after).abs()], 1)

    def describe(self, patches: Tensor) -> Tensor:
        """The middle of a patch, and the mean over it, after attention: ``[n, 6 width]``."""
        places = self.config.patch**2
        middle, whole = patches.new_zeros(places), patches.new_full((places,), 1 / places)
        middle[places // 2] = 1
        of = torch.stack([middle, whole])
        return self.attention.averages(self.joint(patches), of).transpose(1, 2).flatten(1)

    def label(self, patches: Tensor, trace: RoutingTrace | None, present: Tensor) -> Tensor:
        out: Tensor = self.decide(patches, trace=trace)
        return out


register("siamese_moe", SiameseMoE, SiameseMoEConfig, gives="classes")
