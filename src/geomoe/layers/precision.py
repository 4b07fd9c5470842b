"""What must not be computed in half precision."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least_single"]


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32 where it is half precision, else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
