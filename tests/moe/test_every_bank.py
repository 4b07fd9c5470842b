"""What holds for every bank of experts, and every way of running it."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn

from geomoe import moe

C, E, N = 4, 4, 30
GRID = (2, 3, 5)


def convolutions(kernels=(1, 3), members=2):
    return moe.HeterogeneousBank([moe.ConvExperts(C, 6, k, members) for k in kernels])


BANKS = {
    "feed_forward": lambda: moe.FeedForwardExperts(C, 7, E),
    "gated": lambda: moe.FeedForwardExperts(C, 7, E, "silu", gated=True, bias=False),
    "low_rank": lambda: warmed(moe.LowRankExperts(C, 5, 2, E)),
    "modules": lambda: moe.ModuleExperts(
        [
            nn.Linear(C, 6),
            nn.Sequential(nn.Linear(C, 3), nn.Tanh(), nn.Linear(3, 6)),
            nn.Linear(C, 6),
            nn.Linear(C, 6),
        ],
        flops=[48, 60, 48, 48],
    ),
    "convolutions": convolutions,
    "convolution_5": lambda: moe.ConvExperts(C, 6, 5, E),
    "depthwise": lambda: moe.DepthwiseExperts(C, 3, E),
    "joined": lambda: moe.JoinedBank([warmed(moe.LowRankExperts(C, C, r, 2)) for r in (2, 3)]),
    "with_nothing": lambda: moe.JoinedBank(
        [moe.FeedForwardExperts(C, 7, 2), moe.ZeroExperts(), moe.CopyExperts()]
    ),
    "shared_value": lambda: moe.SharedValueExperts(C, 7, E),
    "mixed": lambda: moe.HeterogeneousBank([moe.ConvExperts(C, C, 3, 2), moe.DepthwiseExperts(C, 5, 2)]),
}
every_bank = pytest.mark.parametrize("name", BANKS)
every_k = pytest.mark.parametrize("top_k", [1, 2, E])


def warmed(bank):
    nn.init.normal_(bank.b)  # adapters start at 0, where their gradients are 0 too
    return bank


def setup(name, top_k=1, dtype=torch.float32):
    torch.manual_seed(0)
    bank = BANKS[name]().to(dtype)
    router = moe.Router(moe.LinearScore(8, E), moe.TopK(top_k))
    plan = router(torch.randn(N, 8), GRID)
    plan = replace(plan, weights=plan.weights.detach().to(dtype).requires_grad_())
    x = torch.randn(GRID[0], C, *GRID[1:], dtype=dtype, requires_grad=True)
    return bank, x, plan


def rows_of(bank, x):
    """What the bank works on: pixels with their surroundings, or rows."""
    spatial = isinstance(bank, moe.ConvExperts | moe.DepthwiseExperts | moe.HeterogeneousBank)
    return moe.Neighbourhoods.of(x, bank.reach) if spatial else moe.Pixels.of(x).to_rows(x)


@every_bank
@every_k
def test_back_ends_agree_forward_and_backward(name, top_k):
    results, grads = [], []
    for backend in ("dense", "loop", "grouped"):
        bank, x, plan = setup(name, top_k)
        out = moe.dispatch(bank, rows_of(bank, x), plan, backend)
        out.square().sum().backward()
        results.append(out)
        learned = [p for p in bank.parameters() if p.requires_grad]
        grads.append([x.grad, plan.weights.grad, *(p.grad for p in learned)])
    for other in (1, 2):
        torch.testing.assert_close(results[other], results[0], atol=1e-5, rtol=1e-5)
        for a, b in zip(grads[other], grads[0], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@every_bank
@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_gradcheck(name, backend):
    bank, x, plan = setup(name, 2, torch.float64)
    learned = [p for p in bank.parameters() if p.requires_grad]

    def run(x, weights, *_):
        return moe.dispatch(bank, rows_of(bank, x), replace(plan, weights=weights), backend)

    assert torch.autograd.gradcheck(
        run, (x, plan.weights.detach().requires_grad_(), *learned), fast_mode=True
    )


def turned(x):
    return x.T.contiguous().T


def strided(x):
    return torch.stack([x, x], -1).flatten(-2)[..., ::2]


@every_bank
@pytest.mark.parametrize("backend", ["dense", "loop", "grouped"])
@pytest.mark.parametrize("layout", [turned, strided])
def test_how_a_plan_and_rows_lie_in_memory_does_not_matter(name, backend, layout):
    results = []
    for lay in (torch.clone, layout):
        bank, x, plan = setup(name, 2)
        weights = lay(plan.weights.detach()).requires_grad_()
        kept = lay(torch.arange(2 * N).view(N, 2) % 5 > 0)
        rows = rows_of(bank, x)
        rows = lay(rows) if isinstance(rows, torch.Tensor) else rows
        laid = replace(plan, experts=lay(plan.experts), weights=weights, kept=kept)
        out = moe.dispatch(bank, rows, laid, backend)
        out.square().sum().backward()
        results.append([out, x.grad, weights.grad, *(p.grad for p in bank.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


class BestByScore(moe.Choice):
    """All experts, weighed by what is above 0 of their scores, as sorting leaves them in memory."""

    def forward(self, logits, preference):
        weights, experts = logits.relu().sort(-1, descending=True)
        return moe.Selection(experts, weights, logits.softmax(-1))


def test_a_choice_of_ones_own_may_weigh_as_it_likes():
    bank, x, _ = setup("feed_forward")
    layer = moe.MoE(moe.Router(moe.LinearScore(C, E), BestByScore()), bank)
    rows = rows_of(bank, x)
    layer(rows).sum().backward()
    gate = layer.router.score.gate.weight
    found, gate.grad = gate.grad, None
    layer.backend = "dense"
    layer(rows).sum().backward()
    torch.testing.assert_close(found, gate.grad, atol=1e-4, rtol=1e-4)


@every_bank
def test_same_plan_same_bits(name):
    bank, x, plan = setup(name, 2)
    first, again = (moe.dispatch(bank, rows_of(bank, x), plan) for _ in range(2))
    assert torch.equal(first, again)


def gradients_of(bank, expert):
    """Gradients of one expert's own parameters."""
    if isinstance(bank, moe.HeterogeneousBank | moe.JoinedBank):
        for group in bank:
            if expert < group.num_experts:
                return gradients_of(group, expert)
            expert -= group.num_experts
    if isinstance(bank, moe.ModuleExperts):
        return [p.grad for p in bank.experts[expert].parameters()]
    return [None if p.grad is None else p.grad[expert] for p in owned(bank)]


def owned(bank):
    """Parameters of which each expert has a part of its own."""
    return [bank.gate] if isinstance(bank, moe.SharedValueExperts) else bank.parameters()


@every_bank
@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_an_expert_without_rows_is_safe_and_gets_no_gradient(name, backend):
    bank, x, plan = setup(name)
    only = replace(plan, experts=torch.zeros_like(plan.experts))
    moe.dispatch(bank, rows_of(bank, x), only, backend).square().sum().backward()
    assert x.grad.abs().sum() > 0
    for parameter in owned(bank):
        if (
            parameter.requires_grad
            and parameter.dim() > 1
            and len(parameter) == E
            and parameter.grad is not None
        ):
            assert parameter.grad[0].abs().sum() > 0
            assert parameter.grad[1:].abs().sum() == 0


@every_bank
def test_a_dropped_choice_costs_nothing_and_adds_nothing(name):
    bank, x, plan = setup(name, 2)
    kept = torch.rand(N, 2) < 0.5
    kept[:3] = False
    rows = rows_of(bank, x)
    out = moe.dispatch(bank, rows, replace(plan, kept=kept))
    zeroed = replace(plan, weights=plan.weights * kept)
    torch.testing.assert_close(out, moe.dispatch(bank, rows, zeroed, "dense"), atol=1e-5, rtol=1e-5)
    assert not out[:3].any()
    if name in ("depthwise", "mixed"):
        return  # products that are no matrix products are not seen by the counter
    fewer = replace(plan, kept=kept)
    executed = moe.count_flops(lambda: moe.dispatch(bank, rows, fewer, "loop"))
    assert executed == moe.active_flops(bank, fewer)
    assert executed < moe.active_flops(bank, plan)
    assert moe.count_flops(lambda: moe.dispatch(bank, rows, fewer)) >= executed  # padding is counted


@every_bank
def test_nothing_kept_is_zero(name):
    bank, x, plan = setup(name, 2)
    out = moe.dispatch(bank, rows_of(bank, x), replace(plan, kept=torch.zeros(N, 2, dtype=torch.bool)))
    assert out.shape[0] == N
    assert not out.any()


@pytest.mark.parametrize("name", ["feed_forward", "gated", "low_rank", "convolutions"])
def test_autocast_is_the_same_for_every_back_end(name):
    results = []
    for backend in ("dense", "loop", "grouped"):
        bank, x, plan = setup(name, 2)
        with torch.autocast("cpu", torch.bfloat16):
            out = moe.dispatch(bank, rows_of(bank, x), plan, backend)
            out.float().square().sum().backward()
        assert out.dtype == torch.bfloat16
        assert x.grad.dtype == torch.float32
        results.append(out.float())
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["convolutions", "convolution_5", "mixed"])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("window", [2, 4, 8])
def test_whole_windows_give_the_same_numbers(name, top_k, window, monkeypatch):
    monkeypatch.setattr("geomoe.moe.experts.convolution._WINDOW", window)
    results = []
    for backend in ("dense", "window"):
        bank, x, plan = setup(name, top_k)
        out = moe.dispatch(bank, rows_of(bank, x), plan, backend)
        out.square().sum().backward()
        results.append([out, x.grad, plan.weights.grad, *(p.grad for p in bank.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@every_bank
def test_what_is_not_finite_stays_where_it_is(name):
    bank, x, plan = setup(name, 1)
    plan = replace(plan, experts=plan.experts.clamp(max=1) * 2)  # experts 1 and 3 have no rows
    with torch.no_grad():
        for parameter in owned(bank):
            if len(parameter) == E and parameter.dim() > 1:
                parameter[1] = torch.nan
    out = moe.dispatch(bank, rows_of(bank, x), plan)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", ["convolutions", "feed_forward", "gated"])
def test_chunks_change_nothing(name, monkeypatch):
    results = []
    for size in (None, 20):
        if size:
            for room in ("kernels.batches", "dispatch.combine"):
                monkeypatch.setattr(import_module(f"geomoe.moe.{room}"), "_CACHE", size)
        bank, x, plan = setup(name, 2)
        out = moe.dispatch(bank, rows_of(bank, x), plan)
        out.square().sum().backward()
        results.append([out, x.grad, plan.weights.grad, *(p.grad for p in bank.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def windows_of(bank):
    return torch.randn(N, C, 3 + 2 * bank.reach, 3 + 2 * bank.reach)


@pytest.mark.parametrize("name", BANKS)
@pytest.mark.parametrize("backend", ["loop", "grouped"])
@pytest.mark.parametrize("busy", [[0], []])
def test_the_gradient_of_idle_experts_is_zero_and_not_none(name, backend, busy):
    bank, x, plan = setup(name)
    plan = replace(plan, experts=torch.zeros_like(plan.experts))
    if not busy:
        plan = replace(plan, kept=torch.zeros_like(plan.experts, dtype=torch.bool))
    many = [rows_of(bank, x)]
    if name in ("convolutions", "convolution_5"):
        many.append(windows_of(bank))
    for rows in many:
        bank.zero_grad()
        out = moe.dispatch(bank, rows, plan, backend)
        out.square().sum().backward()
        assert all(p.grad is not None for p in bank.parameters())
        assert any(p.grad.any() for p in bank.parameters()) == bool(busy)
