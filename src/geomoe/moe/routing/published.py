"""Published routers by name, each put together from a score, a choice and adjustments."""

from __future__ import annotations

from geomoe.moe.routing.adjust import AdaptiveNoise, BestGroup, FixedNoise, GroupLimit, LossFreeBias, Noise
from geomoe.moe.routing.capacity import Capacity
from geomoe.moe.routing.choice import (
    AllExperts,
    BalancedAssignment,
    ExpertChoice,
    RandomExperts,
    TopK,
    TopP,
)
from geomoe.moe.routing.router import Router
from geomoe.moe.routing.score import (
    CosineScore,
    DSelectScore,
    FrozenScore,
    HashScore,
    HierarchicalScore,
    HyperplaneScore,
    LinearScore,
)
from geomoe.moe.weights import RoutingMode, check_group_sizes

__all__ = [
    "adaptive_noise_router",
    "base_router",
    "batch_priority_router",
    "cosine_router",
    "deepseek_router",
    "dselect_router",
    "dual_router",
    "expert_choice_router",
    "frozen_router",
    "gshard_router",
    "hash_router",
    "hyperplane_router",
    "noisy_top_k_router",
    "single_router",
    "softmax_router",
    "stochastic_router",
    "switch_router",
    "top_p_router",
    "vmoe_router",
]


def softmax_router(channels: int, num_experts: int, top_k: int | None = None) -> Router:
    """All experts, weighed by a softmax (Jacobs et al. 1991); or its ``top_k`` best, made to sum to 1."""
    choice = AllExperts() if top_k is None else TopK(top_k, "normalised")
    return Router(LinearScore(channels, num_experts), choice)


def dual_router(
    channels: int,
    group_sizes: tuple[int, ...],
    top_k: int = 1,
    mode: RoutingMode = "soft",
    bias: bool = False,
) -> Router:
    """The best group, then the best experts of that group (MFG-HMoE, equations 5 to 7).

    Loss-free biases on groups and experts are there and stay 0 unless :meth:`Router.rebalance` is called. The
    released program's gates have a learned ``bias`` besides.
    """
    if top_k > min(check_group_sizes(group_sizes)):
        raise ValueError(f"top_k={top_k}: expected 1 to {min(group_sizes)}, the smallest group")
    return Router(
        HierarchicalScore(channels, group_sizes, bias=bias),
        TopK(top_k, mode),
        prefer=[BestGroup(group_sizes), LossFreeBias(group_sizes)],
    )


def single_router(
    channels: int, group_sizes: tuple[int, ...], top_k: int = 1, mode: RoutingMode = "soft"
) -> Router:
    """One gate over the experts of all groups: what MFG-HMoE's Table III compares :func:`dual_router` with.

    Starts as decided as that one, and has a loss-free bias too.
    """
    score = LinearScore(channels, sum(check_group_sizes(group_sizes)), gain=4.0)
    score.group_sizes = group_sizes
    return Router(score, TopK(top_k, mode), prefer=[LossFreeBias((score.num_experts,))])


def noisy_top_k_router(channels: int, num_experts: int, top_k: int = 2) -> Router:
    """Noise, top k, softmax over the k (Shazeer et al. 2017). Starts with even gates, as the paper does."""
    score = LinearScore(channels, num_experts, gain=0)
    return Router(score, TopK(top_k, "normalised"), noise=Noise(channels, num_experts))


def adaptive_noise_router(channels: int, num_experts: int, top_k: int = 2) -> Router:
    """As :func:`noisy_top_k_router`, but sure rows are disturbed most: :class:`geomoe.moe.AdaptiveNoise`.

    Gates are not even at first, as rows without an opinion would not be disturbed at all.
    """
    noise = AdaptiveNoise(channels, num_experts)
    return Router(LinearScore(channels, num_experts), TopK(top_k, "normalised"), noise=noise)


def deepseek_router(
    channels: int,
    num_experts: int,
    top_k: int = 8,
    groups: int = 8,
    top_groups: int = 4,
    scale: float = 2.5,
) -> Router:
    """Sigmoid affinities, loss-free bias, experts of the best groups (DeepSeek-V3, 2024, section 2.1.2).

    Args:
        channels: width of the rows.
        num_experts: E, a multiple of ``groups``.
        top_k: experts for each row.
        groups: of equally many experts; 1 for none.
        top_groups: groups that a row may choose from, by the sum of their two best experts.
        scale: of the weights, which sum to it.
    """
    if num_experts % groups:
        raise ValueError(f"groups={groups}: {num_experts} experts are no multiple of it")
    sizes = (num_experts // groups,) * groups
    if top_k > top_groups * sizes[0]:
        raise ValueError(f"top_k={top_k}: {top_groups} groups hold {top_groups * sizes[0]} experts")
    prefer = [LossFreeBias((num_experts,), gate="sigmoid"), GroupLimit(sizes, top_groups, min(2, sizes[0]))]
    choice = TopK(top_k, "normalised", gate="sigmoid", scale=scale)
    return Router(LinearScore(channels, num_experts), choice, prefer=prefer)


def switch_router(channels: int, num_experts: int, capacity_factor: float = 1.25) -> Router:
    """The best expert times its probability, within a capacity (Switch, Fedus et al. 2022)."""
    return Router(LinearScore(channels, num_experts), TopK(1), capacity=Capacity(capacity_factor))


def gshard_router(channels: int, num_experts: int, capacity_factor: float = 2.0) -> Router:
    """Two experts, the second at random by its weight, within a capacity (GShard, Lepikhin et al. 2021)."""
    choice = TopK(2, "normalised", second_at_random=True)
    return Router(LinearScore(channels, num_experts), choice, capacity=Capacity(capacity_factor))


def batch_priority_router(
    channels: int, num_experts: int, top_k: int = 1, capacity_factor: float = 1.0
) -> Router:
    """Places go to the rows with the largest gate, in evaluation too (Riquelme et al. 2021, section 4)."""
    capacity = Capacity(capacity_factor, "gate", capacity_factor)
    return Router(LinearScore(channels, num_experts), TopK(top_k), capacity=capacity)


def vmoe_router(channels: int, num_experts: int, top_k: int = 2, capacity_factor: float = 1.05) -> Router:
    """``TOP_k(softmax(W x + eps))``, eps of ``N(0, 1 / E²)`` while training (V-MoE, Riquelme et al. 2021).

    The gates are the softmax's own: they are not made to sum to 1 over the k. While training, choices for
    which an expert has no place among the rows of the call are dropped, all first choices being served
    before any second one. Unlike the paper's, places have no limit in evaluation, so that a row does not
    depend on the others, and are rounded up. The paper's balance is the mean of two terms:
    :func:`geomoe.moe.importance_loss`, which is of the gates that were carried out where the paper's is of
    the whole softmax without noise, and :func:`geomoe.moe.load_loss`, which is that of Shazeer et al. 2017.
    """
    noise = FixedNoise(num_experts, 1 / num_experts)
    capacity = Capacity(capacity_factor)
    return Router(LinearScore(channels, num_experts), TopK(top_k), noise=noise, capacity=capacity)


def expert_choice_router(channels: int, num_experts: int, experts_per_row: float = 2.0) -> Router:
    """Experts choose their rows, so that ``experts_per_row`` take one on average (Zhou et al. 2022)."""
    return Router(LinearScore(channels, num_experts), ExpertChoice(experts_per_row))


def top_p_router(channels: int, num_experts: int, p: float = 0.4) -> Router:
    """As many experts as it takes to reach probability p (Huang et al. 2024)."""
    return Router(LinearScore(channels, num_experts), TopP(p))


def hash_router(num_experts: int, seed: int = 0) -> Router:
    """A fixed expert for every id (Roller et al. 2021)."""
    return Router(HashScore(num_experts, seed))


def hyperplane_router(channels: int, num_experts: int) -> Router:
    """A bucket for every side of random hyperplanes (locality-sensitive hashing)."""
    return Router(HyperplaneScore(channels, num_experts))


def base_router(channels: int, num_experts: int) -> Router:
    """Balanced assignment while training (BASE, Lewis et al. 2021)."""
    return Router(LinearScore(channels, num_experts), BalancedAssignment())


def dselect_router(channels: int, num_experts: int, selectors: int = 2, gamma: float = 1.0) -> Router:
    """At most ``selectors`` experts once trained, by smooth steps (DSelect-k, Hazimeh et al. 2021)."""
    return Router(DSelectScore(channels, num_experts, selectors, gamma), AllExperts(threshold=1e-12))


def cosine_router(
    channels: int, num_experts: int, top_k: int = 1, projection: int = 256, temperature: float = 0.5
) -> Router:
    """Cosine similarity to an embedding of each expert (Chi et al. 2022)."""
    return Router(CosineScore(channels, num_experts, projection, temperature), TopK(top_k))


def frozen_router(channels: int, num_experts: int, top_k: int = 1) -> Router:
    """A random gate that never learns; raise ``top_k`` by a schedule (SMoE-Dropout, Chen et al. 2023)."""
    return Router(FrozenScore(channels, num_experts), TopK(top_k))


def stochastic_router(channels: int, num_experts: int, top_k: int = 1, ensemble: bool = True) -> Router:
    """Random experts while training; in evaluation the mean of all, or random (THOR, Zuo et al. 2022)."""
    return Router(FrozenScore(channels, num_experts), RandomExperts(top_k, ensemble))
