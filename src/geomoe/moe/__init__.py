"""The core that every system is made of. Imports torch alone.

units     a tensor as the rows that are routed, and back
signals   what a router looks at beside the rows
router    a score, a choice and what stands between them make a RoutingPlan
experts   banks of experts
dispatch  a plan carried out on a bank, and the results combined
balance   terms that keep experts in use; telemetry, what the routing did in numbers

``published`` names the routers of the literature; ``layer``, ``soft`` and ``surgery`` put parts together.
"""

from geomoe.moe.adjust import (
    BestGroup,
    DualAscent,
    ExpertDropout,
    LossFreeBias,
    Noise,
    Preference,
    Temperature,
)
from geomoe.moe.balance import (
    cka,
    cluster_variance_loss,
    consistency_loss,
    distillation_loss,
    importance_loss,
    layer_distillation_loss,
    load_loss,
    mutual_information_loss,
    router_similarity_loss,
    simsmoe_loss,
    switch_loss,
    weight_diversity_loss,
    z_loss,
)
from geomoe.moe.bank import ExpertBank
from geomoe.moe.capacity import Capacity
from geomoe.moe.choice import (
    AllExperts,
    BalancedAssignment,
    Choice,
    ExpertChoice,
    RandomExperts,
    Selection,
    Sparsemax,
    TopK,
    TopP,
)
from geomoe.moe.convolution import ConvExperts, DepthwiseExperts, HeterogeneousBank
from geomoe.moe.dispatch import Backend, choose_backend, dispatch
from geomoe.moe.experts import FeedForwardExperts, LowRankExperts, ModuleExperts, Opaque
from geomoe.moe.fallback import Fallback
from geomoe.moe.flops import active_flops, count_flops
from geomoe.moe.layer import CustomisedGates, MoE, MultiGate, PreGated
from geomoe.moe.plan import NoisyLogits, Replay, RoutingPlan, RoutingTrace
from geomoe.moe.published import (
    base_router,
    batch_priority_router,
    cosine_router,
    dselect_router,
    dual_router,
    expert_choice_router,
    frozen_router,
    gshard_router,
    hash_router,
    hyperplane_router,
    noisy_top_k_router,
    single_router,
    softmax_router,
    stochastic_router,
    switch_router,
    top_p_router,
)
from geomoe.moe.router import AnyRouter, Router
from geomoe.moe.schedule import ElasticTopK, Ramp, RoutingSchedule
from geomoe.moe.score import (
    ConditionedScore,
    CosineScore,
    DSelectScore,
    FrozenScore,
    Gate,
    HashScore,
    HierarchicalScore,
    HyperplaneScore,
    LinearScore,
    Score,
)
from geomoe.moe.signals import DepthSignals, MetadataEncoder, cyclic, frequency_bands, pooled, with_presence
from geomoe.moe.soft import MergedMoE, SoftMoE, merge
from geomoe.moe.telemetry import RoutingHealth, agreement, gini, importance, load, routing_health
from geomoe.moe.units import Modalities, Neighbourhoods, Pixels, Regions, Samples, TimeSteps, Tokens, Windows
from geomoe.moe.weights import RoutingMode

__all__ = [
    "AllExperts",
    "AnyRouter",
    "Backend",
    "BalancedAssignment",
    "BestGroup",
    "Capacity",
    "Choice",
    "ConditionedScore",
    "ConvExperts",
    "CosineScore",
    "CustomisedGates",
    "DSelectScore",
    "DepthSignals",
    "DepthwiseExperts",
    "DualAscent",
    "ElasticTopK",
    "ExpertBank",
    "ExpertChoice",
    "ExpertDropout",
    "Fallback",
    "FeedForwardExperts",
    "FrozenScore",
    "Gate",
    "HashScore",
    "HeterogeneousBank",
    "HierarchicalScore",
    "HyperplaneScore",
    "LinearScore",
    "LossFreeBias",
    "LowRankExperts",
    "MergedMoE",
    "MetadataEncoder",
    "MoE",
    "Modalities",
    "ModuleExperts",
    "MultiGate",
    "Neighbourhoods",
    "Noise",
    "NoisyLogits",
    "Opaque",
    "Pixels",
    "PreGated",
    "Preference",
    "Ramp",
    "RandomExperts",
    "Regions",
    "Replay",
    "Router",
    "RoutingHealth",
    "RoutingMode",
    "RoutingPlan",
    "RoutingSchedule",
    "RoutingTrace",
    "Samples",
    "Score",
    "Selection",
    "SoftMoE",
    "Sparsemax",
    "Temperature",
    "TimeSteps",
    "Tokens",
    "TopK",
    "TopP",
    "Windows",
    "active_flops",
    "agreement",
    "base_router",
    "batch_priority_router",
    "choose_backend",
    "cka",
    "cluster_variance_loss",
    "consistency_loss",
    "cosine_router",
    "count_flops",
    "cyclic",
    "dispatch",
    "distillation_loss",
    "dselect_router",
    "dual_router",
    "expert_choice_router",
    "frequency_bands",
    "frozen_router",
    "gini",
    "gshard_router",
    "hash_router",
    "hyperplane_router",
    "importance",
    "importance_loss",
    "layer_distillation_loss",
    "load",
    "load_loss",
    "merge",
    "mutual_information_loss",
    "noisy_top_k_router",
    "pooled",
    "router_similarity_loss",
    "routing_health",
    "simsmoe_loss",
    "single_router",
    "softmax_router",
    "stochastic_router",
    "switch_loss",
    "switch_router",
    "top_p_router",
    "weight_diversity_loss",
    "with_presence",
    "z_loss",
]
