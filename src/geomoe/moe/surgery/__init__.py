"""Surgery: dense networks made into mixtures of experts, and mixtures made smaller.

upcycle   every expert starts as the dense block (Komatsuzaki et al. 2023)
split     the dense block's neurons shared out among experts (MoEBERT, Zuo et al. 2022)
dynamic   as many experts as a row needs, by predicted norms (D2DMoE, Szatkowski et al. 2024)
masks     experts as learned masks of the dense block (ToMoE, Gao et al. 2025)
prune     the experts that a modality uses (MAPEX)
ensemble  separately trained experts behind a posterior gate (Gururangan et al. 2023)
search    a layout of experts within a budget (AutoMoE, Jawahar et al. 2023)

Low-rank experts on a frozen layer are :class:`geomoe.moe.experts.rows.LowRankExperts`; a dense teacher is
:func:`geomoe.moe.objectives.balance.distillation_loss`.
"""

from geomoe.moe.surgery.dynamic import NormScore, NormThreshold, expert_norms, norm_loss
from geomoe.moe.surgery.ensemble import PosteriorScore
from geomoe.moe.surgery.masks import MaskedExperts
from geomoe.moe.surgery.prune import PrunedRouter, prune, used_experts
from geomoe.moe.surgery.search import Layout, search_layout
from geomoe.moe.surgery.split import neuron_importance, split_feed_forward
from geomoe.moe.surgery.upcycle import upcycle

__all__ = [
    "Layout",
    "MaskedExperts",
    "NormScore",
    "NormThreshold",
    "PosteriorScore",
    "PrunedRouter",
    "expert_norms",
    "neuron_importance",
    "norm_loss",
    "prune",
    "search_layout",
    "split_feed_forward",
    "upcycle",
    "used_experts",
]
