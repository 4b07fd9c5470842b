"""Softmax and its kin over the experts of every row, laid out for speed.

There are many rows and few experts. A reduction over the last, short dimension of ``[N, E]`` runs row by
row (7 times slower for a softmax of 65,536 rows and 16 experts on a CPU); laid out expert by expert, all
rows are worked on at once. Functions here take ``[N, E]`` and give ``[N, E]`` whose memory is ``[E, N]``;
the next one finds it so, and nothing is copied.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["log_softmax", "logsumexp", "reachable", "score", "softmax", "sparsemax", "top"]


def score(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows @ weight.T + bias``, ``[N, E]`` from ``[N, C]`` and ``[E, C]``, in the precision of the rows.

    A router sees its rows in single precision, while mixed precision or a default type may have made its
    weights half.
    """
    weight = weight.to(rows.dtype)
    if bias is None:
        return torch.mm(weight, rows.T).T
    return torch.addmm(bias.to(rows.dtype)[:, None], weight, rows.T).T


def softmax(logits: Tensor) -> Tensor:
    """Softmax over experts."""
    return logits.T.contiguous().softmax(0).T


def logsumexp(logits: Tensor) -> Tensor:
    """``[N]``, over experts."""
    return logits.T.contiguous().logsumexp(0)


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithm of the softmax over experts."""
    return logits - logsumexp(logits)[:, None]


def top(preference: Tensor, k: int) -> Tensor:
    """``[N, k]`` int64, the k largest of each row, best first, none of them twice; of equals the first."""
    if torch.compiler.is_exporting():
        return preference.topk(k, -1).indices  # ONNX has no stable sort; its TopK takes the first of equals
    columns = preference.detach().T
    if k == 1:
        return largest(columns)[:, None]
    if 4 * k > len(columns) or bool(torch.isneginf(columns).any()):
        return preference.detach().argsort(dim=-1, descending=True, stable=True)[:, :k]
    left, found = columns.clone(), []
    for _ in range(k):
        best = largest(left)
        found.append(best)
        left.scatter_(0, best[None], float("-inf"))
    return torch.stack(found, 1)


def largest(columns: Tensor) -> Tensor:
    """``[N]`` int64, the first of the largest in each column of ``[E, N]``."""
    number = len(columns)
    if number > 128:
        return columns.max(0).indices
    # A maximum with its place goes column by column; two maxima without go row by row, three times faster.
    found = torch.ge(columns, columns.amax(0), out=torch.empty_like(columns))
    back = torch.arange(number, 0, -1, device=columns.device, dtype=columns.dtype)
    place = number - found.mul_(back[:, None]).amax(0)
    return place.clamp_(max=number - 1).long()  # a column of NaN has no largest; any expert will do


def reachable(preference: Tensor, experts: Tensor) -> Tensor | None:
    """``[N, k]`` bool, which chosen experts are within reach, not at minus infinity; None where all are."""
    chosen = preference.detach().gather(1, experts)
    there = ~torch.isneginf(chosen)
    return None if torch.compiler.is_exporting() or bool(there.all()) else there


def sparsemax(logits: Tensor) -> Tensor:
    """The point of the simplex nearest to the logits: exact zeros (Martins and Astudillo 2016).
    Differentiable.

    >>> sparsemax(torch.tensor([[0.5, 0.3, -1.0]]))
    tensor([[0.6000, 0.4000, 0.0000]])
    """
    logits = logits - logits.detach().amax(-1, keepdim=True)  # the same point; sums stay small
    ordered = logits.sort(dim=-1, descending=True).values
    count = torch.arange(1, logits.shape[-1] + 1, device=logits.device, dtype=logits.dtype)
    total = ordered.cumsum(-1)
    support = (1 + count * ordered > total).sum(-1, keepdim=True)  # experts above the threshold
    threshold = (total.gather(-1, support - 1) - 1) / support
    return (logits - threshold).clamp_min(0)
