"""Every router of the core by name, for the suites that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from geomoe import moe
from geomoe.moe.surgery import NormScore, NormThreshold, PosteriorScore

CHANNELS, EXPERTS = 8, 4


@dataclass(frozen=True)
class Case:
    make: Callable[[int, int], moe.AnyRouter]  # channels, experts
    learns: bool = True  # False: frozen by design, has no parameters
    alone: bool = True  # in evaluation a row's plan depends on that row alone
    ids: bool = False  # takes whole ids, not rows
    dense: bool = False  # runs every expert


def conditioned(c: int, e: int) -> moe.Router:
    return moe.Router(moe.ConditionedScore(moe.LinearScore(c, e), 3))


def fitted(router: moe.Fallback) -> moe.Fallback:
    router.fit(torch.randn(500, CHANNELS))
    return router


def biased(router: moe.Router) -> moe.Router:
    torch.nn.init.normal_(router.prefer[0].bias)
    return router


ROUTERS = {
    "softmax": Case(moe.softmax_router, dense=True),
    "softmax_top_2": Case(lambda c, e: moe.softmax_router(c, e, 2 if e > 1 else None)),
    "dual": Case(lambda c, e: moe.dual_router(c, (e // 2, e - e // 2) if e > 1 else (1,))),
    "single": Case(lambda c, e: moe.single_router(c, (e // 2, e - e // 2) if e > 1 else (1,))),
    "noisy_top_k": Case(moe.noisy_top_k_router),
    "adaptive_noise": Case(moe.adaptive_noise_router),
    "switch": Case(moe.switch_router),
    "gshard": Case(moe.gshard_router),
    "batch_priority": Case(moe.batch_priority_router, alone=False),
    "vmoe": Case(moe.vmoe_router),
    "expert_choice": Case(moe.expert_choice_router, alone=False),
    "top_p": Case(lambda c, e: moe.top_p_router(c, e, 0.7)),
    "hash": Case(lambda c, e: moe.hash_router(e), learns=False, ids=True),
    "hyperplane": Case(moe.hyperplane_router, learns=False),
    "base": Case(moe.base_router),
    "dselect": Case(moe.dselect_router, dense=True),
    "cosine": Case(lambda c, e: moe.cosine_router(c, e, projection=16)),
    "frozen": Case(moe.frozen_router, learns=False),
    "stochastic": Case(moe.stochastic_router, learns=False, dense=True),
    "conditioned": Case(conditioned),
    "sparsemax": Case(lambda c, e: moe.Router(moe.LinearScore(c, e), moe.Sparsemax())),
    "dual_ascent": Case(
        lambda c, e: biased(
            moe.Router(moe.LinearScore(c, e), moe.Sparsemax(biased=True), prefer=[moe.DualAscent((e,))])
        )
    ),
    "sparsemax_loss_free": Case(
        lambda c, e: biased(
            moe.Router(moe.LinearScore(c, e), moe.Sparsemax(), prefer=[moe.LossFreeBias((e,))])
        )
    ),
    "deepseek": Case(
        lambda c, e: biased(moe.deepseek_router(c, e, top_k=2, groups=2, top_groups=1)),
    ),
    "loss_free_softmax": Case(
        lambda c, e: biased(moe.Router(moe.LinearScore(c, e), prefer=[moe.LossFreeBias((e,), "softmax")]))
    ),
    "loss_free": Case(
        lambda c, e: biased(moe.Router(moe.LinearScore(c, e), prefer=[moe.LossFreeBias((e,))]))
    ),
    "straight_through": Case(lambda c, e: moe.Router(moe.LinearScore(c, e), moe.TopK(1, "straight_through"))),
    "expert_dropout": Case(lambda c, e: moe.Router(moe.LinearScore(c, e), adjust=[moe.ExpertDropout(0.5)])),
    "elastic": Case(lambda c, e: moe.Router(moe.LinearScore(c, e), moe.ElasticTopK(1, range(1, e + 1)))),
    "posterior": Case(
        lambda c, e: moe.Router(PosteriorScore(torch.randn(e, c), torch.ones(e)), moe.AllExperts()),
        learns=False,
        dense=True,
    ),
    "dynamic_k": Case(lambda c, e: moe.Router(NormScore(c, e, 16), NormThreshold(0.5)), learns=False),
    "fallback": Case(lambda c, e: fitted(moe.Fallback(moe.switch_router(c, e), c, 0.5))),
}


HAS_NO_SINGLE_EXPERT = {"noisy_top_k", "adaptive_noise", "gshard", "vmoe", "dselect", "deepseek"}
"""Two choices, or a code of bits: they begin with two experts."""


def rows_for(case: Case, number: int, channels: int = CHANNELS) -> torch.Tensor:
    return torch.randint(0, 1000, (number,)) if case.ids else torch.randn(number, channels)


def router(name: str, experts: int = EXPERTS, seed: int = 0) -> moe.AnyRouter:
    torch.manual_seed(seed)
    return ROUTERS[name].make(CHANNELS, experts)
