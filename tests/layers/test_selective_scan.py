"""The selective scan beside the recurrence written out step by step."""

import pytest
import torch
from torch import Tensor

from geomoe.layers.selective_scan import SelectiveScan, linear_recurrence, selective_scan


def loop(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    h = x.new_zeros(x.shape[0], x.shape[2], a.shape[1])
    out = []
    for t in range(x.shape[1]):
        h = torch.exp(step[:, t, :, None] * a) * h + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
        out.append((h * c[:, t, None]).sum(-1))
    return torch.stack(out, 1)


def inputs(length: int, batch: int = 2, width: int = 3, state: int = 4) -> list[Tensor]:
    g = torch.Generator().manual_seed(length)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return [
        drawn(batch, length, width), drawn(batch, length, width).exp(), -drawn(width, state).exp(),
        drawn(batch, length, state), drawn(batch, length, state),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 97])
def test_scan_and_its_gradients_are_those_of_the_loop(length: int) -> None:
    results = []
    for scan in (selective_scan, loop):
        given = [value.clone().requires_grad_() for value in inputs(length)]
        y = scan(*given)
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        results.append([y, *torch.autograd.grad((y * weight).sum(), given)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_recurrence_by_hand() -> None:
    h = linear_recurrence(torch.tensor([9.0, 0.5, 0.5, 0.0]), torch.tensor([1.0, 1.0, 1.0, 2.0]))
    assert h.tolist() == [1.0, 1.5, 1.75, 2.0]


def test_second_derivatives_are_right() -> None:
    decay, added = (torch.rand(7, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradgradcheck(linear_recurrence, (decay, added))


def test_strong_decay_is_stable() -> None:
    x, _, a, b, c = inputs(100)
    y = selective_scan(x, torch.full_like(x, 1e4), a, b, c)  # every state forgets all that came before
    torch.testing.assert_close(y, 1e4 * x * (b * c).sum(-1, keepdim=True))


def test_layer_looks_back_alone_and_all_of_it_learns() -> None:
    torch.manual_seed(0)
    layer = SelectiveScan(6, state=4, rank=2)
    x = torch.randn(2, 40, 6)
    y = layer(x)
    changed = x.clone()
    changed[:, 25:] += 1
    assert torch.equal(layer(changed)[:, :25], y[:, :25])
    assert not torch.equal(layer(changed)[:, 25:], y[:, 25:])
    y.square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in layer.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in layer.parameters())
