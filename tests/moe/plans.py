"""Rows and plans of known probabilities."""

import torch

from geomoe.moe.plan import RoutingPlan

N, C, E = 60, 8, 4


def rows():
    return torch.randn(N, C)


def made(probabilities, k=1):
    p = torch.as_tensor(probabilities)
    best = p.topk(k, 1)
    return RoutingPlan(best.indices, best.values, p, p.log(), (p.shape[1],), (len(p),))


def collapsed():
    return made([[1.0] + [0.0] * (E - 1)] * 8)


def even():
    return made((0.96 * torch.eye(E) + 0.01).repeat(2, 1))
