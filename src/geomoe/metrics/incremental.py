"""Metrics of learning in sessions: what is kept, what is lost, and what earlier sessions did for later ones.

All are of the accuracies ``[S, S]`` of S sessions: row s after session s, column t on the test samples of
the classes that session t brought; what stands above the diagonal is of classes that were not known yet, and
of it :func:`forward_transfer` alone makes use.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "average_accuracy",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "intransigence",
    "of_sessions",
]


def of_sessions(right: Tensor, session: Tensor, sessions: int) -> Tensor:
    """``[sessions]``, the accuracy on each session's samples: a row of the matrix; nan where there are none.

    Args:
        right: ``[N]`` bool, whether each sample was answered right.
        session: ``[N]`` int64, the session that brought its class, from 0.
        sessions: S.
    """
    hits = torch.zeros(sessions).index_add(0, session, right.float())
    return hits / torch.bincount(session, minlength=sessions)


def average_accuracy(matrix: Tensor, sizes: Tensor | None = None) -> Tensor:
    """``[S]``, the accuracy after each session on all classes that are known by then.

    Its last value is the final accuracy, its mean the average incremental accuracy (Rebuffi et al. 2017).

    Args:
        matrix: ``[S, S]``.
        sizes: ``[S]``, test samples of each session; alike by default.
    """
    weights = torch.ones(len(matrix)) if sizes is None else sizes.to(matrix.dtype)
    known = torch.ones(len(matrix), len(matrix)).tril() * weights
    return (matrix.tril() * weights).sum(1) / known.sum(1)


def forgetting(matrix: Tensor) -> Tensor:
    """Mean over earlier sessions of the best accuracy before the last session, less that after it.

    Chaudhry et al. 2018, equation 3; nan of a single session.
    """
    if len(matrix) < 2:
        return _nothing(matrix)
    before, after = matrix[:-1, :-1], matrix[-1, :-1]
    there = torch.ones_like(before).tril().bool()
    return (before.masked_fill(~there, -torch.inf).amax(0) - after).mean()


def backward_transfer(matrix: Tensor) -> Tensor:
    """Mean over earlier sessions of the accuracy after the last session, less that right after their own.

    Lopez-Paz and Ranzato 2017; negative where later sessions cost earlier ones; nan of a single session.
    """
    return (matrix[-1, :-1] - matrix.diagonal()[:-1]).mean() if len(matrix) > 1 else _nothing(matrix)


def forward_transfer(matrix: Tensor, untrained: Tensor) -> Tensor:
    """Mean over later sessions of the accuracy just before their own, less that of an untrained model.

    Lopez-Paz and Ranzato 2017; of tasks whose outputs a model has from the start. Where sessions bring new
    classes nothing is right before them: see :func:`intransigence`.

    Args:
        matrix: ``[S, S]``, the diagonal above the main one included.
        untrained: ``[S]``, accuracies of random weights.
    """
    return (matrix.diagonal(1) - untrained[1:]).mean() if len(matrix) > 1 else _nothing(matrix)


def intransigence(matrix: Tensor, reference: Tensor) -> Tensor:
    """Mean over sessions of a reference's accuracy on their classes, less that right after learning them.

    Chaudhry et al. 2018, equation 5; negative where earlier sessions made later ones easier to learn.

    Args:
        matrix: ``[S, S]``.
        reference: ``[S]``, say of a model that was trained on all sessions at once.
    """
    return (reference - matrix.diagonal()).mean()


def _nothing(matrix: Tensor) -> Tensor:
    return matrix.new_tensor(torch.nan)
