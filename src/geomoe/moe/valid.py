"""Rows that are not there: nodata, hidden tokens, missing dates."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_valid", "present"]


def check_valid(valid: Tensor, rows: int) -> None:
    """Raise ValueError unless ``valid`` is ``[rows]`` of bool."""
    if valid.shape != (rows,) or valid.dtype != torch.bool:
        raise ValueError(f"valid {list(valid.shape)} of {valid.dtype} for {rows} rows: expected [N] of bool")


def present(rows: Tensor, valid: Tensor | None) -> Tensor:
    """``rows`` ``[N, ...]`` with zeros where they are not ``valid`` ``[N]``.

    For what computes all rows and weighs them afterwards: NaN, which often stands for nodata, is still NaN
    times a weight of 0, in the result and in gradients.
    """
    if valid is None:
        return rows
    check_valid(valid, rows.shape[0])
    return rows.masked_fill(~valid.view(-1, *(1,) * (rows.dim() - 1)), 0)
