"""Triton kernels for routed matrix products: one launch for all experts of a bank.

A row's input is gathered as it is multiplied, from one place (feed-forward experts) or from a pixel's k x k
surroundings (convolution experts), so that neighbourhoods are not written to memory. Used for CUDA
tensors where Triton is installed; with ``TRITON_INTERPRET=1`` they run on a CPU, slowly, for tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

__all__ = ["available_for", "routed_product", "switched_off", "weight_gradient"]

_off = False
_ROWS, _COLUMNS, _DEPTH = 32, 32, 32
"""Sides of the blocks that one program multiplies."""


def available_for(x: Tensor) -> bool:
    """Whether these kernels can work on ``x``."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    wanted = x.is_cuda or (interpreted and x.device.type == "cpu")
    if not wanted or _off or find_spec("triton") is None:
        return False
    # The interpreter's bfloat16 is wrong.
    return x.dtype in (torch.float32, torch.float16) or (x.dtype == torch.bfloat16 and not interpreted)


@contextmanager
def switched_off() -> Iterator[None]:
    """Plain products instead, whose work PyTorch can count."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


@cache
def _compiled() -> Any:
    from geomoe.moe.kernels import _triton

    return _triton


def _tiles(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """``[tiles, 3]`` int32: expert, first row and end of its rows, for every block of rows."""
    # Without a loop: for a large image there are tens of thousands, in whose time the work itself is done.
    # On the CPU, whatever the default device: the counts are there, and nothing waits for the accelerator.
    rows = torch.tensor(counts, dtype=torch.int64, device="cpu")
    blocks = -(-rows // _ROWS)
    expert = torch.arange(len(counts), device="cpu").repeat_interleave(blocks)
    end, last = rows.cumsum(0)[expert], blocks.cumsum(0)[expert]
    number = torch.arange(len(expert), device="cpu") - (last - blocks[expert])
    tiles = torch.stack([expert, end - rows[expert] + _ROWS * number, end], 1)
    return tiles.to(device, torch.int32)


def _in_order(flat: Tensor) -> Tensor:
    return torch.arange(flat.shape[0], device=flat.device)


def _precision(dtype: torch.dtype) -> str:
    matmul = torch.backends.cuda.matmul
    # The older switch may not be read once the newer one was set.
    tf32 = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if dtype == torch.float32 and tf32 else "ieee"


def routed_product(
    flat: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    centres: Tensor | None,
    offsets: tuple[int, ...],
    counts: tuple[int, ...],
    out: Tensor | None = None,
) -> Tensor:
    """``out[r] = sum_t flat[centres[r] + offsets[t]] @ weight[e(r), t] + bias[e(r)]``.

    Args:
        flat: ``[P, C]``.
        weight: ``[E, T * C, O]``.
        bias: ``[E, O]`` or None.
        centres: ``[m]`` int64, sorted by expert; None for the rows of ``flat`` in their order.
        offsets: T steps from a centre.
        counts: rows of each expert; sums to m.
        out: where to write, contiguous; a new tensor by default.

    Returns:
        ``[m, O]``.
    """
    channels, width = flat.shape[1], weight.shape[2]
    centres = _in_order(flat) if centres is None else centres
    out = flat.new_empty(len(centres), width) if out is None else out
    tiles = _tiles(counts, flat.device)
    if not len(tiles):
        return out
    taps = torch.tensor(offsets, dtype=torch.int64, device=flat.device)
    flat, weight = flat.contiguous(), weight.contiguous()
    grid = (len(tiles), -(-width // _COLUMNS))
    _compiled().routed_product_kernel[grid](
        flat, weight, weight if bias is None else bias.contiguous(), centres, taps, tiles, out,
        channels, width, len(offsets),
        BIASED=bias is not None, ROWS=_ROWS, COLUMNS=_COLUMNS, DEPTH=_DEPTH, PRECISION=_precision(flat.dtype),
    )  # fmt: skip
    return out


def weight_gradient(
    flat: Tensor, grad: Tensor, centres: Tensor | None, offsets: tuple[int, ...], counts: tuple[int, ...]
) -> Tensor:
    """``[E, T * C, O]``, the gradient of ``weight`` in :func:`routed_product` for ``grad`` ``[m, O]``."""
    channels, width = flat.shape[1], grad.shape[1]
    centres = _in_order(flat) if centres is None else centres
    out = flat.new_zeros(len(counts), len(offsets) * channels, width)
    ends = torch.tensor(counts, dtype=torch.int32, device=flat.device).cumsum(0, dtype=torch.int32)
    taps = torch.tensor(offsets, dtype=torch.int64, device=flat.device)
    blocks = -(-channels // _ROWS)
    grid = (len(counts), len(offsets) * blocks, -(-width // _COLUMNS))
    _compiled().weight_gradient_kernel[grid](
        flat.contiguous(), grad.contiguous(), centres, taps, ends, out,
        channels, width, len(offsets), blocks,
        ROWS=_ROWS, COLUMNS=_COLUMNS, DEPTH=_DEPTH, PRECISION=_precision(flat.dtype),
    )  # fmt: skip
    return out
