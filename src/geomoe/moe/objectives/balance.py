"""Balance: terms that keep experts in use, and make them differ. All are off unless a task asks for them.

Each is a function of plans, weights or results, and holds no state: a layer that is called twice gives two
plans, and both count. Rows that are not valid count in none. Biases that balance without a term in the loss
are in :mod:`geomoe.moe.routing.adjust`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.moe.plan import RoutingPlan
from geomoe.moe.telemetry import importance, load
from geomoe.moe.weights import check_clusters

__all__ = [
    "cka",
    "cluster_variance_loss",
    "consistency_loss",
    "distillation_loss",
    "entropy_loss",
    "even_entropy_loss",
    "global_entropy_loss",
    "importance_loss",
    "layer_distillation_loss",
    "load_loss",
    "local_entropy_loss",
    "mutual_information_loss",
    "router_similarity_loss",
    "simsmoe_loss",
    "switch_loss",
    "weight_diversity_loss",
    "z_loss",
]


def mean(x: Tensor) -> Tensor:
    """Mean of all entries; 0 of none, with a gradient of 0: a batch may have no row of a kind."""
    return x.sum() / max(x.numel(), 1)


def squared_variation(x: Tensor) -> Tensor:
    """``Var / Mean²`` with the population's variance: 0 when even, E / m - 1 when m entries hold all."""
    return x.var(correction=0) / x.mean().square().clamp_min(torch.finfo(x.dtype).tiny)


def importance_loss(plan: RoutingPlan) -> Tensor:
    """Squared coefficient of variation of the experts' summed gates (Shazeer et al. 2017, equation 7).

    Usual weight 1e-2. 0 when all gates sum to the same, E - 1 when one expert takes everything.
    """
    plan = plan.of_valid()
    return squared_variation(importance(plan))


def load_loss(plan: RoutingPlan) -> Tensor:
    """Squared coefficient of variation of the experts' expected load (Shazeer et al. 2017, appendix A).

    Usual weight 1e-2. The load of an expert is the sum over rows of the probability that, were its noise
    drawn anew, it would be among the top k. A smooth stand-in for a count, through which the gradient reaches
    scores and noise.
    0 at even load, E / k - 1 when the same k experts take every row (E - 1 for one).

    Raises:
        ValueError: a plan without noise, or with k = E.
    """
    plan = plan.of_valid()
    if plan.noise is None:
        raise ValueError("load_loss: the plan was made without noise; give the router noise, and train mode")
    if plan.top_k >= plan.num_experts:
        raise ValueError("load_loss: expected a router of the k best experts, with k below E")
    k, noisy = plan.top_k, plan.noise.noisy
    best = noisy.topk(k + 1, -1).values  # [N, k + 1]
    inside = noisy >= best[:, k - 1 : k]
    # The k-th best among the others: an expert inside has to stay above the (k+1)-th, one outside to
    # reach the k-th.
    hurdle = torch.where(inside, best[:, k : k + 1], best[:, k - 1 : k])
    # An expert that is out of reach never comes in, one without rivals within reach always does.
    never = torch.isneginf(plan.noise.clean)
    always = ~never & torch.isneginf(hurdle)
    apart = (plan.noise.clean - hurdle).masked_fill(never | always, 0)
    chance = torch.special.ndtr(apart / plan.noise.std.clamp_min(1e-6))
    return squared_variation(chance.masked_fill(never, 0).masked_fill(always, 1).sum(0))


def switch_loss(plan: RoutingPlan) -> Tensor:
    """``E * sum_e f_e P_e``: share of choices times mean probability (Fedus et al. 2022). Usual weight 1e-2.

    1 at uniform routing for every k, E when one expert takes everything with certainty. The gradient flows
    through P alone.
    """
    plan = plan.of_valid()
    belief = plan.probabilities.sum(0) / max(plan.num_rows, 1)  # [E]
    return plan.num_experts * (load(plan, asked=True) * belief).sum()


def z_loss(plan: RoutingPlan) -> Tensor:
    """``mean(logsumexp(logits)²)``: keeps logits small (ST-MoE, Zoph et al. 2022). Usual weight 1e-3."""
    plan = plan.of_valid()
    return mean(plan.logits.logsumexp(-1).square())


def router_similarity_loss(router: Tensor) -> Tensor:
    """``|RᵀR - I|`` summed: a router that keeps rows as similar as they were (Omi et al. 2025).

    Args:
        router: R ``[C, E]``, the router's matrix, an expert a column; 0 where columns are orthonormal.
    """
    gram = router.T @ router
    return (gram - torch.eye(gram.shape[0], device=gram.device, dtype=gram.dtype)).abs().sum()


def cka(a: Tensor, b: Tensor) -> Tensor:
    """Linear centred kernel alignment of two results ``[n, C]`` on the same rows.

    1 when they are alike up to rotation and scale.
    """
    # Of one size first: what is added below must be small beside results of any scale.
    a, b = (unit(x - x.mean(0)) for x in (a, b))
    cross = (a.T @ b).square().sum()
    size = (a.T @ a).square().sum() * (b.T @ b).square().sum()
    return cross / (size + 1e-12).sqrt()  # inside the root: its slope at 0 has no end


def unit(x: Tensor) -> Tensor:
    """``x`` over its norm; 0 stays."""
    return torch.div(x, x.norm().clamp_min(torch.finfo(x.dtype).tiny))


def simsmoe_loss(results: Tensor, threshold: float = 0.0) -> Tensor:
    """Mean CKA of pairs of experts on shared rows, of those above ``threshold`` (SimSMoE, Do et al. 2024).

    Args:
        results: ``[E, n, C]``, every expert on the same rows.
        threshold: pairs at or below it are left in peace.
    """
    alike = [cka(results[i], results[j]) for i in range(len(results)) for j in range(i + 1, len(results))]
    over = [value for value in alike if float(value) > threshold]
    return torch.stack(over).mean() if over else results.new_zeros(())


def cluster_variance_loss(plan: RoutingPlan, clusters: tuple[int, ...]) -> Tensor:
    """Variance of probabilities inside clusters of experts less that between them.

    After MoEC (Xie et al. 2023). Mean over rows. Minimise it: experts of a cluster become alike to a row, and
    one cluster stands out. 0 at uniform probabilities, where the term inside clusters alone would rest;
    least, at ``-(K - 1) / K² / m²``, where all weight is on one of K clusters of m experts, evenly.

    Args:
        plan: the plan.
        clusters: cluster of each expert.
    """
    plan = plan.of_valid()
    check_clusters(clusters, plan.num_experts)
    member = F.one_hot(torch.tensor(clusters, device=plan.probabilities.device)).float()  # [E, clusters]
    size = member.sum(0)
    p = plan.probabilities
    average = p @ member / size  # [N, clusters]
    inside = ((p.square() @ member) / size - average.square()).clamp_min(0)
    between = (average - average.mean(1, keepdim=True)).square()
    return mean(inside) - mean(between)


def entropy_loss(plan: RoutingPlan) -> Tensor:
    """Mean entropy of the rows' beliefs: makes a router decide. ln E at uniform, 0 where rows are certain.

    Keeps the experts of :class:`geomoe.moe.routing.choice.TopP` few (Huang et al. 2024; usual weight 1e-4).
    Less ln E it is ``-KL(p, uniform)``, by which Elastic MoE (Gu et al. 2025) puts experts in a clear order,
    so that any k serves.
    """
    plan = plan.of_valid()
    p = plan.probabilities
    return mean(torch.special.entr(p.clamp_min(torch.finfo(p.dtype).tiny)).sum(1))


def even_entropy_loss(plan: RoutingPlan, decided: float = 0.5) -> Tensor:
    """``-H(mean g) + decided mean H(g)`` of the gates: all experts in use, few by any one row.

    ``-ln E`` where each row has one expert and every expert as many rows; 0 where all rows have the same one.

    Args:
        plan: the plan.
        decided: how much it counts that a row's gates are few.
    """
    gates = plan.of_valid().gates
    tiny = torch.finfo(gates.dtype).tiny  # the slope of the entropy at 0 has no end
    use = gates.sum(0) / max(len(gates), 1)
    rows: Tensor = torch.special.entr(gates.clamp_min(tiny)).sum(1)
    whole: Tensor = torch.special.entr(use.clamp_min(tiny)).sum()
    return decided * mean(rows) - whole


def mutual_information_loss(plan: RoutingPlan, tasks: Tensor, num_tasks: int | None = None) -> Tensor:
    """``-I(task; expert)``: tasks should have experts of their own (Mod-Squad, Chen et al. 2023; GRAM).

    Usual weight 1e-3. 0 where experts do not depend on the task, ``-ln E`` where each task has one expert of
    E. The gradient flows through the probabilities.

    Args:
        plan: the plan.
        tasks: ``[N]`` int64, the task (region, class) of each row.
        num_tasks: tasks there are; the largest seen plus one by default.
    """
    tasks = tasks if plan.valid is None else tasks[plan.valid]
    plan = plan.of_valid()
    if num_tasks is None:
        num_tasks = int(tasks.max()) + 1 if len(tasks) else 1
    member = F.one_hot(tasks, num_tasks).to(plan.probabilities.dtype)
    joint = member.T @ plan.probabilities / max(len(tasks), 1)  # [T, E]
    parts = (joint, joint.sum(0), joint.sum(1))
    tiny = torch.finfo(joint.dtype).tiny  # the slope of the entropy at 0 has no end
    both, experts, task = (torch.special.entr(part.clamp_min(tiny)).sum() for part in parts)
    information: Tensor = experts + task - both
    return -information


def local_entropy_loss(plan: RoutingPlan, modality: Tensor) -> Tensor:
    """Mean entropy of the rows' beliefs, averaged over modalities (LIMoE, Mustafa et al. 2022).

    0 where every row is certain. Each modality counts alike, however few its tokens.

    Args:
        plan: the plan.
        modality: ``[N]`` int64, of each row.
    """
    modality = modality if plan.valid is None else modality[plan.valid]
    plan = plan.of_valid()
    p = plan.probabilities
    entropy: Tensor = torch.special.entr(p.clamp_min(torch.finfo(p.dtype).tiny)).sum(1)
    if not len(p):
        return p.sum()  # 0, with a gradient of 0
    return torch.stack([entropy[modality == m].mean() for m in modality.unique()]).mean()


def global_entropy_loss(plan: RoutingPlan, modality: Tensor, threshold: float | None = None) -> Tensor:
    """By how much the entropy of each modality's mean belief falls short (LIMoE). Usual weight 0.04.

    ``max(0, threshold - H(mean p))``, averaged over modalities: sees the collapse of one where the sum of all
    is even. 0 once every modality uses, in effect, ``exp(threshold)`` experts.

    Args:
        plan: the plan.
        modality: ``[N]`` int64, of each row.
        threshold: in nats; ln E, even use of all, by default.
    """
    modality = modality if plan.valid is None else modality[plan.valid]
    plan = plan.of_valid()
    p = plan.probabilities
    tiny = torch.finfo(p.dtype).tiny
    if not len(p):
        return p.sum()
    belief = torch.stack([p[modality == m].mean(0) for m in modality.unique()])
    entropy: Tensor = torch.special.entr(belief.clamp_min(tiny)).sum(1)
    wanted = math.log(plan.num_experts) if threshold is None else threshold
    return (wanted - entropy).clamp_min(0).mean()


def weight_diversity_loss(weights: Tensor) -> Tensor:
    """Mean squared cosine between the weights of different experts: 0 where they are orthogonal.

    Args:
        weights: ``[E, ...]``, a bank's stacked parameter.
    """
    flat = F.normalize(weights.flatten(1), dim=1)
    gram = flat @ flat.T
    apart = ~torch.eye(len(gram), dtype=torch.bool, device=gram.device)
    return gram[apart].square().mean() if len(gram) > 1 else gram.new_zeros(())


def consistency_loss(a: Tensor, b: Tensor) -> Tensor:
    """Symmetric KL divergence of logits ``[N, classes]``, 0 where equal (THOR, Zuo et al. 2022)."""
    log_a, log_b = a.log_softmax(-1), b.log_softmax(-1)
    return 0.5 * mean(((log_a.exp() - log_b.exp()) * (log_a - log_b)).sum(-1))


def distillation_loss(
    student: Tensor, teacher: Tensor, loss: Tensor, share: float = 0.5, temperature: float = 2.0
) -> Tensor:
    """``a T² KL(teacher, student) + (1 - a) loss``: a dense model teaches a sparse one (Hinton et al. 2015).

    Args:
        student: logits ``[N, classes]``.
        teacher: logits ``[N, classes]``.
        loss: the task's own.
        share: a, in [0, 1].
        temperature: T, 2 to 4 is usual.
    """
    target = (teacher.detach() / temperature).log_softmax(-1)
    own = (student / temperature).log_softmax(-1)
    divergence = mean((target.exp() * (target - own)).sum(-1))
    return share * temperature**2 * divergence + (1 - share) * loss


def layer_distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared error between results of layers, averaged over layers (MoEBERT, Zuo et al. 2022).

    Args:
        student: results of the sparse network's layers.
        teacher: results of the dense network's, in the same order; no gradient reaches them.
    """
    errors = [mean((s - t.detach()).square()) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(errors).mean()
