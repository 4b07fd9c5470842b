import importlib
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from geomoe.moe import ConvExperts, DualRouter, HeterogeneousBank, RoutingPlan, dispatch
from geomoe.moe.units import Neighbourhoods, pixels_to_rows, rows_to_pixels


def setup(grid=(2, 5, 7), kernels=(1, 3), members=3, top_k=1, dtype=torch.float32, mode="soft"):
    torch.manual_seed(0)
    bank = HeterogeneousBank([ConvExperts(4, 6, k, members) for k in kernels]).to(dtype)
    x = torch.randn(grid[0], 4, *grid[1:], dtype=dtype)
    router = DualRouter(8, bank.group_sizes, top_k, mode)
    plan = router(torch.randn(grid[0] * grid[1] * grid[2], 8), grid)
    return bank, x, plan


def as_conv(group, member, x):
    k = group.kernel_size
    weight = group.weight[member].view(k, k, x.shape[1], -1).permute(3, 2, 0, 1)
    return F.conv2d(x, weight, group.bias[member], padding=k // 2)


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 5, 7), (1, 1, 9), (3, 4, 4)])
@pytest.mark.parametrize("kernels", [(1, 3), (5,), (3, 5, 1)])
@pytest.mark.parametrize("top_k", [1, 2])
def test_loop_equals_dense_equals_convolutions(grid, kernels, top_k):
    bank, x, plan = setup(grid, kernels, top_k=top_k)
    every = torch.stack([as_conv(g, m, x) for g in bank for m in range(g.num_experts)], 1)  # [B, E, C, H, W]
    mix = rows_to_pixels(torch.zeros_like(plan.probabilities).scatter(1, plan.experts, plan.weights), grid)
    expected = (every * mix[:, :, None]).sum(1)
    for backend in ("loop", "dense"):
        torch.testing.assert_close(dispatch(bank, x, plan, backend), expected, atol=1e-5, rtol=1e-5)


def test_gradients_agree_between_backends():
    grads = []
    for backend in ("loop", "dense"):
        bank, x, plan = setup(top_k=2)
        x.requires_grad_()
        dispatch(bank, x, plan, backend).square().sum().backward()
        grads.append([x.grad, *(p.grad for p in bank.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_gradcheck():
    bank, x, plan = setup((1, 3, 3), dtype=torch.float64)
    weights = plan.weights.detach().double().requires_grad_()

    def run(x, weights, *_):
        fixed = RoutingPlan(
            plan.experts, weights, plan.probabilities, plan.logits, plan.group_sizes, plan.grid
        )
        return dispatch(bank, x, fixed)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), weights, *bank.parameters()))


def test_an_expert_without_rows_is_safe_and_gets_a_zero_gradient():
    bank, x, plan = setup()
    only = RoutingPlan(
        torch.zeros_like(plan.experts),
        plan.weights.detach(),
        plan.probabilities,
        plan.logits,
        (3, 3),
        plan.grid,
    )
    dispatch(bank, x, only).sum().backward()
    first, second = bank
    assert first.weight.grad[0].abs().sum() > 0
    assert first.weight.grad[1:].abs().sum() == 0
    assert second.weight.grad is None or second.weight.grad.abs().sum() == 0


def test_chunks_change_nothing(monkeypatch):
    bank, x, plan = setup((1, 9, 9))
    whole = dispatch(bank, x, plan)
    monkeypatch.setattr(importlib.import_module("geomoe.moe.dispatch"), "_CHUNK", 7)
    torch.testing.assert_close(dispatch(bank, x, plan), whole)


def test_rows_and_pixels_are_inverse():
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(rows_to_pixels(pixels_to_rows(x), (2, 5, 7)), x)


def test_neighbourhoods_of_all_pixels_are_an_unfold():
    x = torch.randn(2, 3, 5, 7)
    rows = Neighbourhoods(x, 2).gather(torch.arange(70), 3)
    unfolded = F.unfold(x, 3, padding=1).view(2, 3, 9, 35).permute(0, 3, 2, 1).reshape(70, 27)
    torch.testing.assert_close(rows, unfolded)


def test_only_chosen_experts_are_run():
    bank, x, plan = setup((1, 6, 6), members=4)
    rows = []
    for group in bank:
        original = group.expert
        group.expert = lambda i, r, original=original: (rows.append(len(r)), original(i, r))[1]
    dispatch(bank, x, plan)
    assert sum(rows) == 36


def test_a_bank_of_unlike_outputs_is_refused():
    with pytest.raises(ValueError, match="output channels"):
        HeterogeneousBank([ConvExperts(4, 6, 1, 2), ConvExperts(4, 5, 3, 2)])


@pytest.mark.parametrize("room", ["geomoe.moe", "geomoe.models"])
def test_importing_a_low_room_brings_in_no_heavy_neighbour(room):
    code = (
        f"import sys, {room}; "
        "print([m for m in ('rasterio', 'lightning', 'scipy', 'PIL', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
