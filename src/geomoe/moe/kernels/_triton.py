# mypy: ignore-errors
"""The kernels themselves; imported only where they are run, since Triton need not be there."""

import triton
import triton.language as tl

__all__ = ["routed_product_kernel", "weight_gradient_kernel"]


@triton.jit
def routed_product_kernel(
    flat,
    weight,
    bias,
    centres,
    taps,
    tiles,
    out,
    channels,
    width,
    num_taps,
    BIASED: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    DEPTH: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
):
    """One block of one expert's rows by one block of columns."""
    tile = tl.program_id(0)
    expert = tl.load(tiles + 3 * tile).to(tl.int64)
    start = tl.load(tiles + 3 * tile + 1)
    end = tl.load(tiles + 3 * tile + 2)
    row = start + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    here, inside = row < end, column < width
    centre = tl.load(centres + row, mask=here, other=0)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for tap in range(num_taps):
        place = centre + tl.load(taps + tap)
        for first in range(0, channels, DEPTH):
            channel = first + tl.arange(0, DEPTH)
            there = channel < channels
            x = tl.load(
                flat + place[:, None] * channels + channel[None, :],
                mask=here[:, None] & there[None, :],
                other=0.0,
            )
            depth = (expert * num_taps + tap) * channels + channel
            w = tl.load(
                weight + depth[:, None] * width + column[None, :],
                mask=there[:, None] & inside[None, :],
                other=0.0,
            )
            total = tl.dot(x, w, total, input_precision=PRECISION)
    if BIASED:
        total += tl.load(bias + expert * width + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    target = out + row[:, None].to(tl.int64) * width + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=here[:, None] & inside[None, :])


@triton.jit
def weight_gradient_kernel(
    flat,
    grad,
    centres,
    taps,
    ends,
    out,
    channels,
    width,
    num_taps,
    blocks,
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    DEPTH: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
):
    """One block of one expert's weight: a sum over its rows in their order, so that bits repeat."""
    expert = tl.program_id(0)
    tap = tl.program_id(1) // blocks
    channel = (tl.program_id(1) % blocks) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    there, inside = channel < channels, column < width
    start = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends + expert)
    step = tl.load(taps + tap)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(start, end, DEPTH):
        row = first + tl.arange(0, DEPTH)
        here = row < end
        place = tl.load(centres + row, mask=here, other=0) + step
        x = tl.load(
            flat + place[None, :] * channels + channel[:, None],
            mask=there[:, None] & here[None, :],
            other=0.0,
        )  # [channels, rows]
        g = tl.load(
            grad + row[:, None].to(tl.int64) * width + column[None, :],
            mask=here[:, None] & inside[None, :],
            other=0.0,
        )
        total = tl.dot(x, g, total, input_precision=PRECISION)
    depth = (expert.to(tl.int64) * num_taps + tap) * channels + channel
    target = out + depth[:, None] * width + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=there[:, None] & inside[None, :])
