"""The Triton kernels beside plain products: on an accelerator, or in Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from geomoe.moe.kernels import launch as kernels

COUNTS = (40, 0, 3, 70)
interpreted = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(interpreted, reason="this is the run in the interpreter")
def test_in_the_interpreter():
    """The interpreter must be chosen before Triton is imported: a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "16 passed" in done.stdout


def device():
    if interpreted:
        return torch.device("cpu")  # where there is an accelerator, too
    if torch.cuda.is_available():
        return torch.device("cuda")
    return pytest.skip("no accelerator; the same tests run in Triton's interpreter above")


def inputs(channels, width, offsets, dtype=torch.float32):
    torch.manual_seed(0)
    where = device()
    margin = max(map(abs, offsets))
    flat = torch.randn(150 + 2 * margin, channels, device=where, dtype=dtype)
    centres = margin + torch.randint(0, 150, (sum(COUNTS),), device=where)
    weight = torch.randn(len(COUNTS), len(offsets) * channels, width, device=where, dtype=dtype)
    bias = torch.randn(len(COUNTS), width, device=where, dtype=dtype)
    return flat, weight, bias, centres


def gathered(flat, centres, offsets):
    index = centres[:, None] + torch.tensor(offsets, device=flat.device)
    return flat[index].flatten(1).split(COUNTS)


@pytest.mark.parametrize("counts", [COUNTS, (), (0, 0), (32,), (1, 64, 0, 33)])
def test_tiles_cover_the_rows_of_each_expert(counts):
    start, expected = 0, []
    for expert, count in enumerate(counts):
        expected += [[expert, row, start + count] for row in range(start, start + count, 32)]
        start += count
    tiles = kernels._tiles(counts, torch.device("cpu"))
    assert tiles.dtype == torch.int32
    assert tiles.shape[1] == 3
    assert tiles.tolist() == expected


SHAPES = [(5, 7, (0,)), (40, 33, (0,)), (12, 6, (-11, -10, -9, -1, 0, 1, 9, 10, 11))]


@pytest.mark.parametrize(("channels", "width", "offsets"), SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_product(channels, width, offsets, biased):
    flat, weight, bias, centres = inputs(channels, width, offsets)
    assert kernels.available_for(flat)
    done = kernels.routed_product(flat, weight, bias if biased else None, centres, offsets, COUNTS)
    expected = torch.cat([x @ w for x, w in zip(gathered(flat, centres, offsets), weight, strict=True)])
    if biased:
        expected += bias.repeat_interleave(torch.tensor(COUNTS, device=flat.device), 0)
    torch.testing.assert_close(done, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("channels", "width", "offsets"), SHAPES)
def test_weight_gradient(channels, width, offsets):
    flat, _, _, centres = inputs(channels, width, offsets)
    grad = torch.randn(sum(COUNTS), width, device=flat.device)
    done = kernels.weight_gradient(flat, grad, centres, offsets, COUNTS)
    parts = zip(gathered(flat, centres, offsets), grad.split(COUNTS), strict=True)
    torch.testing.assert_close(done, torch.stack([x.T @ g for x, g in parts]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("top_k", [1, 2])
def test_banks_give_the_same_numbers_through_the_kernels(top_k):
    from geomoe import moe

    where = device()
    torch.manual_seed(0)
    convolutions = moe.HeterogeneousBank([moe.ConvExperts(5, 6, k, 2) for k in (1, 3)]).to(where)
    blocks = moe.FeedForwardExperts(5, 9, 4).to(where)
    x = torch.randn(1, 5, 6, 7, device=where, requires_grad=True)
    plan = moe.Router(moe.LinearScore(5, 4), moe.TopK(top_k)).to(where)(torch.randn(42, 5, device=where))
    for bank, rows in ((convolutions, moe.Neighbourhoods.of(x, 1)), (blocks, moe.Pixels.of(x).to_rows(x))):
        results = []
        for backend in ("loop", "grouped"):
            x.grad = None
            bank.zero_grad()
            moe.dispatch(bank, rows, plan.detach(), backend).square().sum().backward(retain_graph=True)
            results.append([x.grad, *(p.grad for p in bank.parameters())])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
