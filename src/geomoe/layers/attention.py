"""Window attention: shifted windows (Swin, Liu et al. 2021; by cosine, Swin V2, Liu et al. 2022), and
overlapping cross-attention (HAT)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.precision import at_least_single
from geomoe.layers.windows import merge_windows, partition_windows, relative_position_index

__all__ = ["CosineWindowAttention", "OverlappingCrossAttention", "WindowAttention"]


class _PositionBias(nn.Module):
    """A learned bias for every head and every relative position."""

    index: Tensor

    def __init__(self, query: int, key: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty((query + key - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", relative_position_index(query, key), persistent=False)

    def forward(self) -> Tensor:
        """``[1, heads, query**2, key**2]``."""
        return self.table.t()[:, self.index][None]


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention within windows.

    Args:
        q: ``[..., n, heads * d]``, all leading dimensions windows.
        k: ``[..., m, heads * d]``.
        v: like ``k``.
        bias: ``[1, heads, n, m]``.

    Returns:
        Like ``q``.
    """
    heads, given = bias.shape[1], v.dtype

    def split(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-2], heads, x.shape[-1] // heads).transpose(1, 2)

    if q.device.type == "cpu" and bias.requires_grad and torch.is_grad_enabled():
        # No fused kernel of the CPU has a gradient for the bias, and a substitute for one is slow.
        scores = split(q * (q.shape[-1] // heads) ** -0.5) @ split(k).transpose(-1, -2)
        out = (at_least_single(scores) + bias).softmax(-1).to(v.dtype) @ split(v)
    elif q.device.type == "cpu":
        # Half-precision softmax is not vectorised on the CPU: float32 is faster there.
        with torch.autocast("cpu", enabled=False):
            q, k, v = at_least_single(q), at_least_single(k), at_least_single(v)
            out = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=bias.to(q.dtype))
    else:
        out = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=bias.to(q.dtype))
    return out.to(given).transpose(1, 2).reshape(q.shape)


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows of ``window``, moved by ``shift`` pixels.

    Args:
        dim: channels.
        heads: attention heads; must divide ``dim``.
        window: side of a window.
        shift: 0, or how far the windows are moved (half a window as a rule).
    """

    outside: Tensor

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.bias = _PositionBias(window, window, heads)
        # After the cyclic shift, the last window of a row or column holds pixels from both ends of
        # the image, which must not see each other: position p of a window belongs to part 0 or 1.
        part = (torch.arange(window) >= window - shift).long() if shift else torch.zeros(window).long()
        below, right = part[:, None].expand(window, window), part[None, :].expand(window, window)
        masks = [torch.zeros(window**2, window**2)]
        for wraps in (right, below, 2 * below + right):
            p = wraps.flatten()
            masks.append(torch.zeros(window**2, window**2).masked_fill(p[:, None] != p, float("-inf")))
        self.register_buffer("outside", torch.stack(masks), persistent=False)  # [4, n, n]

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]``, H and W multiples of the window, to the same shape."""
        bias = self.bias()
        if not self.shift:
            return self._windows(x, bias)
        x = x.roll((-self.shift, -self.shift), (1, 2))
        # Only four kinds of window exist: inside, at the right edge, at the bottom edge, in the
        # corner. One call each, with one mask that broadcasts over all windows of the kind, costs
        # far less memory than a mask for every window.
        body, edge = slice(None, -self.window), slice(-self.window, None)
        inside, right, below, corner = (
            self._windows(x[:, rows, columns], bias + mask)
            for (rows, columns), mask in zip(
                ((body, body), (body, edge), (edge, body), (edge, edge)), self.outside, strict=True
            )
        )
        out = torch.cat((torch.cat((inside, right), 2), torch.cat((below, corner), 2)), 1)
        return out.roll((self.shift, self.shift), (1, 2))

    def _windows(self, x: Tensor, bias: Tensor) -> Tensor:
        # Cut into windows before the projection: a third of the channels to copy.
        q, k, v = self.qkv(partition_windows(x, self.window)).chunk(3, -1)
        return merge_windows(self.proj(_attend(q, k, v, bias)), self.window)


class CosineWindowAttention(WindowAttention):
    """Window attention by scaled cosine (Swin V2, Liu et al. 2022, equation 2), as Swin2-MoSE has it.

    Its position bias is Swin's table. The values of each window pass a depth-wise 3x3 convolution that is
    added (LePE, CSWin, Dong et al. 2022). Keys have no additive bias.

    Args:
        dim: channels.
        heads: attention heads; must divide ``dim``.
        window: side of a window.
        shift: 0, or how far the windows are moved.
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__(dim, heads, window, shift)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.query_bias, self.value_bias = (nn.Parameter(torch.zeros(dim)) for _ in range(2))
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), 10.0).log())
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        # As published. Where a scale near 100 is learned, some of a hidden pair comes through.
        self.outside.clamp_(min=-100.0)

    def _windows(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.qkv(partition_windows(x, self.window)).chunk(3, -1)
        q, v = q + self.query_bias, v + self.value_bias
        each = q.shape[-1] // self.heads
        # _attend divides by the root of the width, which cosines do not want.
        scale = self.log_scale.squeeze(-1).clamp(max=math.log(100)).exp() * each**0.5
        q, k = (F.normalize(at_least_single(t).unflatten(-1, (self.heads, each)), dim=-1) for t in (q, k))
        out = _attend((q * scale).flatten(-2).to(v.dtype), k.flatten(-2).to(v.dtype), v, bias)
        squares = v.reshape(-1, self.window, self.window, v.shape[-1]).permute(0, 3, 1, 2)
        out = out + self.local(squares).permute(0, 2, 3, 1).reshape(v.shape)
        return merge_windows(self.proj(out), self.window)


class OverlappingCrossAttention(nn.Module):
    """Queries from windows, keys and values from larger concentric windows (HAT, Chen et al. 2023).

    Args:
        dim: channels.
        heads: attention heads.
        window: side of the query windows, and their stride.
        overlap: the key windows' side is ``(1 + overlap) * window``; zeros beyond the image.

    Raises:
        ValueError: an overlap that is not an even number of pixels.
    """

    def __init__(self, dim: int, heads: int, window: int, overlap: float) -> None:
        super().__init__()
        self.window = window
        self.key_window = int(window * overlap) + window
        if (self.key_window - window) % 2:
            raise ValueError(f"overlap={overlap}: {window} * overlap must be an even number of pixels")
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.bias = _PositionBias(window, self.key_window, heads)

    def _key_windows(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to ``[B, H/window, W/window, key_window**2, C]``."""
        height, width = x.shape[1:3]
        border = (self.key_window - self.window) // 2
        padded = F.pad(x, (0, 0, border, border, border, border))
        steps = torch.arange(self.key_window, device=x.device)
        lines = torch.arange(0, height, self.window, device=x.device)[:, None] + steps
        columns = torch.arange(0, width, self.window, device=x.device)[:, None] + steps
        # By index: the gradient of overlapping views made with unfold is far slower than this one's.
        windows = padded[:, lines[:, None, :, None], columns[None, :, None, :]]  # [B, R, C, k, k, channels]
        return windows.flatten(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]``, H and W multiples of the window, to the same shape."""
        dim = x.shape[-1]
        q, kv = self.qkv(x).split((dim, 2 * dim), -1)
        k, v = self._key_windows(kv).chunk(2, -1)
        out = _attend(partition_windows(q, self.window), k, v, self.bias())
        result: Tensor = self.proj(merge_windows(out, self.window))
        return result
