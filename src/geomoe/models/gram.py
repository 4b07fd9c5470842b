"""GRAM: adapters that cities share, a gate for each city, and a way to unseen cities.

Lee, Park, Yang, Kim, Cha, "Generalizable Slum Detection from Satellite Imagery with Mixture-of-Experts",
arXiv 2511.10300, AAAI 2026. A Mix Transformer (Xie et al., SegFormer, 2021) has in each block, after its
feed-forward part, experts that are bottlenecks; a gate of the image's city gives the whole image two of them.
Cities are made to have experts of their own by the mutual information of city and expert. In an unseen city
the gates of all known ones are tried, and the model goes on learning from what it says of the images on which
they agree (:mod:`geomoe.evaluation.adapt`).

From the paper and its program: trunk, sizes, bottlenecks, a linear gate for each city, two of twelve experts,
the term of mutual information in the last stage, both classifiers of the city, adaptation. Other than in the
program: noise in training alone; a gate sees the mean of the tokens, where sums make the noise grow with the
image; weights are a softmax of the two logits, with no statistic of the batch; only chosen experts are run;
mutual information has a gradient; adapters begin at 0. Assumed: the width of the noise is one for all cities;
the small network of the image alone decides for each image, or, once the target is settled, for all of them;
what the stages found is joined at a quarter of the image's size, as in SegFormer, with a ReLU. Left out: the
least width of the noise, .01; the layer of 250 between the small network's mean and its classes; and, in
training, rotations by 10 degrees and changes of scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import lcm
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.layers.convolution import conv3x3
from geomoe.layers.mix_transformer import CoarseAttention, MixFFN
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig, check_divides
from geomoe.models.registry import register
from geomoe.models.twin import Twin, twin_of
from geomoe.moe import DomainScore, LinearScore, ModuleExperts, MoE, Noise, Router, Samples, TopK
from geomoe.moe.objectives.balance import mutual_information_loss
from geomoe.moe.plan import RoutingTrace

__all__ = ["Gram", "GramConfig"]

_TILE = 256
"""Side of a tile's core, pixels, at the least."""


@dataclass(frozen=True)
class GramConfig(MapConfig):
    """Everything that makes a :class:`Gram`.

    Attributes:
        domains: names of the cities that it learns from.
        widths: channels of each stage; the first has a quarter of the image's size, each next one half.
        depths: blocks of each stage.
        heads: of attention of each stage; divide its width.
        reduce: how many times coarser keys and values of each stage are.
        ratio: width inside a feed-forward part over its stage's.
        bottleneck: width inside an adapter of each stage.
        experts: adapters in each block.
        top_k: of them for each image.
        decoder: channels in which stages are joined.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`. The gates of an image add up to
            1, so that one expert times them is no other control than ``active``.
    """

    domains: tuple[str, ...] = ("0", "1")
    widths: tuple[int, ...] = (32, 64, 160, 256)
    depths: tuple[int, ...] = (3, 6, 40, 3)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    reduce: tuple[int, ...] = (8, 4, 2, 1)
    ratio: int = 4
    bottleneck: tuple[int, ...] = (2, 4, 10, 16)
    experts: int = 12
    top_k: int = 2
    decoder: int = 256
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("depths", "heads", "reduce", "bottleneck"):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(f"{name}={getattr(self, name)}: expected one for each of {self.widths}")
        for heads, width in zip(self.heads, self.widths, strict=True):
            check_divides("heads", heads, "widths", width)
        names = self.domains
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"domains={names!r}: expected names")
        if len(set(names)) < max(len(names), 2):
            raise ValueError(f"domains={names!r}: expected two folders of images or more, each once")
        if self.twin == "gated":
            raise ValueError("twin='gated': the gates of an image add up to 1; choose another twin")

    @property
    def cells(self) -> int:
        """Side of the squares of pixels that are whole in every stage's grid of keys."""
        return lcm(*(4 * 2**stage * reduce for stage, reduce in enumerate(self.reduce)))


class Adapter(nn.Sequential):
    """A bottleneck, which gives 0 at first."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__(nn.Linear(width, bottleneck), nn.GELU(), nn.Linear(bottleneck, width))
        for parameter in self[2].parameters():
            nn.init.zeros_(parameter)


class Block(nn.Module):
    """Attention, feed-forward part and adapters, each added to what came before."""

    def __init__(self, c: GramConfig, stage: int) -> None:
        super().__init__()
        width = c.widths[stage]
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CoarseAttention(width, c.heads[stage], c.reduce[stage])
        self.ffn = MixFFN(width, c.ratio * width)
        router = Router(
            DomainScore([LinearScore(width, c.experts) for _ in c.domains]),
            TopK(c.top_k, "soft" if c.top_k == 1 else "normalised"),  # else the one gate would be 1
            noise=Noise(width, c.experts),
        )
        bank = ModuleExperts([Adapter(width, c.bottleneck[stage]) for _ in range(c.experts)])
        self.adapters = twin_of(MoE(router, bank), c.twin)

    def forward(self, x: Tensor, there: Tensor, domain: Tensor, trace: RoutingTrace | None) -> Tensor:
        """``[B, H, W, C]`` to the same; ``there`` ``[B, H, W, 1]`` is 1 where a token holds a pixel."""
        x = x + self.attention(self.norm1(x))
        x = x + self.ffn(self.norm2(x))
        seen = (x * there).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)
        added: Tensor = self.adapters(x, seen, grid=Samples.of(x).grid, context=domain[:, None], trace=trace)
        return x + added


class Stage(nn.Module):
    """Blocks of one size of grid, after the convolution that makes its tokens."""

    def __init__(self, c: GramConfig, stage: int) -> None:
        super().__init__()
        width = c.widths[stage]
        kernel, stride = (3, 2) if stage else (7, 4)
        before = c.widths[stage - 1] if stage else c.bands
        self.embed = nn.Conv2d(before, width, kernel, stride, padding=kernel // 2)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(c, stage) for _ in range(c.depths[stage]))

    def forward(self, x: Tensor, there: Tensor, domain: Tensor, trace: RoutingTrace | None) -> Tensor:
        """``[B, C, H, W]`` to features of half its size, in the first stage a quarter."""
        x = self.norm1(self.embed(x).movedim(1, -1))
        for block in self.blocks:
            x = block(x, there.movedim(1, -1), domain, trace)
        out: Tensor = self.norm2(x).movedim(-1, 1)
        return out


class City(nn.Sequential):
    """Which city an image ``[B, bands, H, W]`` is of, as logits ``[B, cities]``, by itself."""

    def __init__(self, bands: int, cities: int) -> None:
        convs: list[nn.Module] = []
        for before, width in ((bands, 8), (8, 16), (16, 32)):
            convs += [conv3x3(before, width, 2), nn.ReLU()]
        super().__init__(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, cities))


def city(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy of both guesses of the city, from the image and from the last stage's features."""
    domain = _told(answers)
    return F.cross_entropy(answers["city"], domain) + F.cross_entropy(answers["inside"], domain)


def mutual_information(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """``-I(city; expert)`` in the last stage, the mean over its blocks; 0 where nothing is routed."""
    _told(answers)
    return answers["information"]


def _told(answers: Mapping[str, Tensor]) -> Tensor:
    if "domain" not in answers:
        raise GeomoeError(
            "gram learns by the city of each image, and of two or more; lay the images of each that is "
            "trained on in a folder of its own"
        )
    return answers["domain"]


class Gram(nn.Module):
    """Says of every pixel what it shows, by the adapters of its image's city.

    Example:
        >>> import torch
        >>> from geomoe.models.gram import Gram, GramConfig
        >>> small = dict(widths=(8, 8), depths=(1, 1), heads=(1, 2), reduce=(2, 1), bottleneck=(2, 2))
        >>> model = Gram(GramConfig(domains=("Cairo", "Lagos"), decoder=8, **small)).eval()
        >>> model(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "city": city, "mutual_information": mutual_information
    }  # fmt: skip
    """Losses of its own, of what :meth:`answers` gives and the truth."""
    takes_domain: ClassVar = True
    """It is told while training of which city each sample is."""
    settled: Tensor
    """The city whose gates all images go by that no city is given of; -1 for each by its own guess."""

    def __init__(self, config: GramConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.encoder = nn.ModuleList(Stage(c, stage) for stage in range(len(c.widths)))
        self.sides = nn.ModuleList(nn.Conv2d(width, c.decoder, 1) for width in c.widths)
        self.join = nn.Conv2d(len(c.widths) * c.decoder, c.decoder, 1)
        self.head = nn.Conv2d(c.decoder, len(c.classes), 1)
        self.city = City(c.bands, len(c.domains))
        self.inside = nn.Linear(c.widths[-1], len(c.domains))
        self.register_buffer("settled", torch.tensor(-1))

    @property
    def contract(self) -> ModelContract:
        c = self.config
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        tile, margin = (-(-side // c.cells) * c.cells for side in (_TILE, _TILE // 8))
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, Tiling(c.cells, tile, margin))

    def guess(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """``[B]``, the city that each image ``[B, bands, H, W]`` looks most like."""
        found: Tensor = self.city(self._shown(x, valid)).argmax(1)
        return found

    def settle(self, domain: int) -> None:
        """Take every image that no city is given of as one city's; with -1 each by its own guess again."""
        self.settled.fill_(domain)

    def opinions(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits ``[D, B, classes, H, W]`` by the gates of each city."""
        cities = torch.arange(len(self.config.domains), device=x.device)
        return torch.stack([self(x, valid=valid, domain=each.expand(len(x))) for each in cities])

    def answers(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        domain: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``classes``, logits ``[B, classes, H, W]``, and what the losses of its own are of.

        These are ``city`` and ``inside``, guesses of the city, ``[B, D]``, and where the city was given it
        is there as ``domain``, and the term of mutual information as ``information``.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size; continued to whole cells by mirroring.
            trace: if given, the plan of every block is appended to it; a row is an image.
            valid: ``[B, H, W]`` bool, the pixels that there are; the others are seen as the mean of their
                band, and no gate sees a token of theirs alone.
            domain: ``[B]`` int64, the city of each image; where none is given, see :attr:`settled`.
        """
        c, trace = self.config, RoutingTrace() if trace is None else trace
        before, y = len(trace), self._shown(x, valid)
        found = {"city": self.city(y)}
        used = domain
        if used is None:
            used = torch.where(self.settled < 0, found["city"].argmax(1), self.settled)
        there = x.new_ones(len(x), 1, *x.shape[2:]) if valid is None else valid[:, None].to(x.dtype)
        height, width = (-size % c.cells for size in x.shape[2:])
        y, there = pad_to_multiple(y, c.cells), F.pad(there, (0, width, 0, height))
        sides: list[Tensor] = []
        for stage, side in zip(self.encoder, self.sides, strict=True):
            there = F.max_pool2d(there, 2 if sides else 4)
            y = stage(y, there, used, trace)
            size = sides[0].shape[2:] if sides else y.shape[2:]
            sides.append(F.interpolate(side(y), size, mode="bilinear"))
        logits = self.head(F.relu(self.join(torch.cat(sides, 1))))
        classes = crop_to(F.interpolate(logits, scale_factor=4, mode="bilinear"), x)
        found["inside"] = self.inside((y * there).sum((2, 3)) / there.sum((2, 3)).clamp_min(1))
        if domain is not None:
            last = trace.plans[before:][-c.depths[-1] :]
            terms = [mutual_information_loss(plan, domain, len(c.domains)) for plan in last]
            found["information"] = torch.stack(terms).mean() if terms else classes.new_zeros(())
            found["domain"] = domain
        return {"classes": classes, **found}

    def forward(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        domain: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[B, classes, H, W]``; see :meth:`answers`."""
        return self.answers(x, trace, valid, domain)["classes"]

    def _shown(self, x: Tensor, valid: Tensor | None) -> Tensor:
        y: Tensor = self.normalise(x)
        return y if valid is None else y.masked_fill(~valid[:, None], 0)


register("gram", Gram, GramConfig, gives="classes")
