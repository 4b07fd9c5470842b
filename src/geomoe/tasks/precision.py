"""Which precisions a device computes with, rather than imitates."""

from __future__ import annotations

import torch

__all__ = ["has_bfloat16"]


def has_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 have kernels there: some CPUs imitate them, in several times the time."""
    if device.type != "cpu":
        return True
    # oneDNN's answer, which decides the path that torch takes.
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
