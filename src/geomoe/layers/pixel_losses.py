"""Losses of maps: of logits ``[B, K, H, W]`` and truths ``[B, H, W]`` int64, -1 where there is no class.

Each is a mean over samples, of the pixels with a class alone; 0 of a sample that has none.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "boundary",
    "cross_entropy",
    "dice",
    "divergence",
    "hard_pixels",
    "lovasz",
    "over_pixels",
    "smoothed",
]

_NONE, _SMOOTHING = -1, 0.05
_SURE, _LEAST = 0.7, 0.2
_EDGE, _REACH = 1, 2
"""Pixels of an outline's width, and how far from the true one it may lie."""


def over_pixels(losses: Tensor, truth: Tensor) -> Tensor:
    """Mean over samples of the mean over their pixels with a class, of losses ``[B, H, W]``, 0 elsewhere."""
    return (losses.sum((1, 2)) / (truth >= 0).sum((1, 2)).clamp_min(1)).mean()


def cross_entropy(logits: Tensor, truth: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy; with ``smoothing`` that share of the truth is all classes alike."""
    each = F.cross_entropy(logits, truth, ignore_index=_NONE, reduction="none", label_smoothing=smoothing)
    return over_pixels(each, truth)


def smoothed(logits: Tensor, truth: Tensor) -> Tensor:
    """:func:`cross_entropy` with a smoothing of .05."""
    return cross_entropy(logits, truth, _SMOOTHING)


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 less the soft Dice score (Milletari et al. 2016) of the classes that a sample has."""
    known = (truth >= 0)[:, None]
    shares = logits.float().softmax(1) * known
    classes = F.one_hot(truth.clamp_min(0), logits.shape[1]).permute(0, 3, 1, 2) * known
    both, either = (shares * classes).sum((2, 3)), (shares + classes).sum((2, 3))  # [B, classes]
    there = classes.sum((2, 3)) > 0
    missed = (1 - 2 * both / either.clamp_min(1e-6)) * there
    return (missed.sum(1) / there.sum(1).clamp_min(1)).mean()


def lovasz(logits: Tensor, truth: Tensor) -> Tensor:
    """Lovász-Softmax (Berman et al. 2018): 1 less IoU, made continuous, of the classes that a sample has."""
    shares = logits.float().softmax(1).flatten(2)  # [B, K, N]
    flat = truth.flatten(1)
    known = (flat >= 0)[:, None]
    own = F.one_hot(flat.clamp_min(0), logits.shape[1]).permute(0, 2, 1) * known  # [B, K, N]
    errors, order = ((own - shares).abs() * known).sort(2, descending=True)  # errors of the unknown are 0
    there, counts = own.gather(2, order).double(), known.expand_as(own).gather(2, order).double()
    size = there.sum(2, keepdim=True)
    missed = 1 - (size - there.cumsum(2)) / (size + (counts - there).cumsum(2)).clamp_min(1)
    slope = torch.cat([missed[..., :1], missed.diff(dim=2)], 2).float()
    losses, has = (errors * slope).sum(2), size[..., 0] > 0
    return ((losses * has).sum(1) / has.sum(1).clamp_min(1)).mean()


def boundary(logits: Tensor, truth: Tensor) -> Tensor:
    """1 less the soft F measure of outlines (Bokhovkin and Burnaev 2019) of the classes that a sample has.

    Outlines are one pixel wide, of a class where it meets another one that is known; what lies within two
    pixels of the other outline is right.
    """
    known = (truth >= 0)[:, None].float()
    shares = logits.float().softmax(1) * known
    classes = F.one_hot(truth.clamp_min(0), logits.shape[1]).permute(0, 3, 1, 2) * known
    said, true = _outline(shares, known), _outline(classes, known)
    near_said, near_true = (F.max_pool2d(x, 2 * _REACH + 1, 1, _REACH) for x in (said, true))
    precision = (said * near_true).sum((2, 3)) / said.sum((2, 3)).clamp_min(1e-6)
    recall = (near_said * true).sum((2, 3)) / true.sum((2, 3)).clamp_min(1e-6)
    there = true.sum((2, 3)) > 0
    missed = (1 - 2 * precision * recall / (precision + recall).clamp_min(1e-6)) * there
    return (missed.sum(1) / there.sum(1).clamp_min(1)).mean()


def _outline(shares: Tensor, known: Tensor) -> Tensor:
    """``[B, K, H, W]``, how much of another class is beside each pixel of a class."""
    other = known - shares
    return (F.max_pool2d(other, 2 * _EDGE + 1, 1, _EDGE) - other).clamp_min(0) * known


def hard_pixels(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of the pixels whose class has a probability below .7 (OHEM, Shrivastava et al. 2016).

    Of the hardest fifth of a sample at the least.
    """
    each = F.cross_entropy(logits, truth, ignore_index=_NONE, reduction="none").flatten(1)  # 0 of unknown
    ordered = each.sort(1, descending=True).values
    least = (_LEAST * (truth >= 0).sum((1, 2))).ceil()[:, None]
    hard = (torch.arange(each.shape[1], device=each.device) < least) | (ordered > -math.log(_SURE))
    return ((ordered * hard).sum(1) / hard.sum(1).clamp_min(1)).mean()


def divergence(student: Tensor, teacher: Tensor, there: Tensor, temperature: float) -> Tensor:
    """``KL(teacher, student)`` over the classes of each pixel, softened (Hinton et al. 2015).

    Args:
        student: logits.
        teacher: logits; no gradient reaches them.
        there: ``[B, H, W]`` bool, the pixels that count.
        temperature: that logits are divided by.
    """
    target, own = ((x.float() / temperature).log_softmax(1) for x in (teacher.detach(), student))
    each = (target.exp() * (target - own)).sum(1) * there
    return (each.sum((1, 2)) / there.sum((1, 2)).clamp_min(1)).mean()
