"""SparseFFN: the feed-forward layer of a block as a mixture of experts, to which each token is routed.

After Shazeer et al. 2017; in transformers GShard (Lepikhin et al. 2021), of images V-MoE (Riquelme et al.
2021), which has such a layer in every second block, or in the last two of these alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geomoe.models.options import LabelConfig
from geomoe.models.twin import Mixture, Twin, twin_of, twin_width
from geomoe.moe import FeedForwardExperts, MoE, Router
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing import published
from geomoe.moe.units import Tokens

__all__ = [
    "OF_ALL",
    "ROUTERS",
    "DenseFFN",
    "SparseConfig",
    "SparseFFN",
    "check_router",
    "dense_twin",
    "feed_forward",
    "sparse_ffn",
]

_GIVEN = ("channels", "num_experts")

ROUTERS: dict[str, Callable[..., Router]] = {
    name.removesuffix("_router"): make
    for name in published.__all__
    if tuple(inspect.signature(make := getattr(published, name)).parameters)[:2] == _GIVEN
}
"""Routers of :mod:`geomoe.moe.routing.published` that look at one width of row, and know one group."""


OF_ALL = ("batch_priority", "expert_choice")
"""What these choose for a row depends on all the others."""


def check_router(router: str, options: object, routers: Mapping[str, Callable[..., Router]]) -> None:
    """Refuse, with a ValueError, a router that is none of ``routers``, and options that it does not have."""
    if router not in routers:
        raise ValueError(f"router={router!r}: expected one of {', '.join(routers)}")
    if not isinstance(options, Mapping):
        raise ValueError(f"router_options={options!r}: expected options with values")
    known = tuple(inspect.signature(routers[router]).parameters)[len(_GIVEN) :]
    for name in options:
        if name not in known:
            raise ValueError(
                f"router_options: the router {router} has no {name!r}; it has: {', '.join(known)}"
            )


@dataclass(frozen=True)
class SparseConfig(LabelConfig):
    """Options of a network of blocks, whose feed-forward layers may be mixtures of experts.

    Attributes:
        sparse: the blocks whose feed-forward layer is one: none, all, every second one, or the last two of
            these.
        experts: in each of these layers, each as large as the layer that it stands for.
        router: one of :data:`ROUTERS`.
        router_options: of that router, beside width and number of experts, such as ``{top_k: 1}``.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    sparse: Literal["none", "all", "every_2", "last_2"] = "none"
    experts: int = 8
    router: str = "noisy_top_k"
    router_options: dict[str, Any] = field(default_factory=dict)
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_router(self.router, self.router_options, ROUTERS)

    def is_sparse(self, block: int, blocks: int) -> bool:
        """Whether block number ``block``, from 0, of ``blocks`` has a mixture of experts."""
        second = block % 2 == 1
        return {
            "none": False,
            "all": True,
            "every_2": second,
            "last_2": second and block >= blocks // 2 * 2 - 4,
        }[self.sparse]


class DenseFFN(nn.Module):
    """Two linear layers with GELU between, on ``[B, H, W, C]``."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """``[..., C]`` to the same, of all that there are and of others."""
        out: Tensor = self.layers(x)
        return out


class SparseFFN(nn.Module):
    """A mixture in its place, each token through those experts that a router chose for it.

    Args:
        mixture: of experts on rows ``[N, C]``.
        twin: what replaces it.
        channels: C.
    """

    def __init__(self, mixture: MoE, twin: Twin, channels: int) -> None:
        super().__init__()
        self.moe = twin_of(mixture, twin, lambda: dense_twin(mixture, twin, channels))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """``[B, ..., C]`` to the same; the plan has a row for each token, and the grid ``(B, ...)``.

        Tokens that are not ``valid``, ``[B, ...]`` bool, have no expert, count nowhere and become 0.
        """
        tokens = Tokens.of(x)
        there = None if valid is None else valid.reshape(-1)
        return tokens.from_rows(self.moe(tokens.to_rows(x), grid=tokens.grid, valid=there, trace=trace))


def dense_twin(mixture: Mixture, twin: Twin, channels: int) -> DenseFFN:
    """The dense layer that stands for a mixture of feed-forward layers."""
    return DenseFFN(channels, twin_width(mixture, twin, each=2 * channels + 1))


def sparse_ffn(make: Callable[[], MoE], twin: Twin, channels: int) -> DenseFFN | SparseFFN:
    """The mixture of feed-forward layers that ``make`` makes, or the twin that replaces it."""
    if twin not in ("active", "parameters"):
        return SparseFFN(make(), twin, channels)
    with torch.device("meta"):
        mixture = make()
    return dense_twin(mixture, twin, channels)


def feed_forward(config: SparseConfig, channels: int, block: int, blocks: int) -> DenseFFN | SparseFFN:
    """The feed-forward layer of block number ``block``, from 0, of ``blocks``."""
    hidden = int(channels * config.mlp_ratio)
    if not config.is_sparse(block, blocks):
        return DenseFFN(channels, hidden)

    def mixture() -> MoE:
        router = ROUTERS[config.router](channels, config.experts, **config.router_options)
        return MoE(router, FeedForwardExperts(channels, hidden, config.experts))

    return sparse_ffn(mixture, config.twin, channels)
