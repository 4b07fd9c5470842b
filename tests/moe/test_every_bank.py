"""What holds for every bank of experts, and every way of running it."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
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

    assert torch.autograd.gradcheck(run, (x, plan.weights.detach().requires_grad_(), *learned))


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


def test_hand_counts_of_flops_parameters_and_reach():
    feed_forward = moe.FeedForwardExperts(10, 20, 3)
    assert feed_forward.row_flops() == (2 * (10 * 20 + 20 * 10),) * 3
    assert feed_forward.num_parameters == 3 * (10 * 20 + 20 + 20 * 10 + 10)
    gated = moe.FeedForwardExperts(10, 20, 3, gated=True, bias=False)
    assert gated.row_flops() == (2 * 3 * 10 * 20,) * 3
    mixed = moe.HeterogeneousBank([moe.ConvExperts(10, 6, 1, 2), moe.ConvExperts(10, 6, 5, 1)])
    assert mixed.row_flops() == (120, 120, 2 * 25 * 60)
    assert mixed.reach == 2
    assert moe.DepthwiseExperts(10, 3, 2).row_flops() == (180, 180)
    assert moe.LowRankExperts(10, 6, 2, 3).row_flops() == (2 * (20 + 12),) * 3
    windows = moe.Windows.of(torch.randn(1, 10, 16, 16), 8, 2)
    rows = windows.to_rows(torch.randn(1, 10, 16, 16))
    plan = moe.Router(moe.LinearScore(4, 3))(torch.randn(4, 4), windows.grid)
    executed = moe.count_flops(lambda: moe.dispatch(moe.ConvExperts(10, 6, 5, 3), rows, plan))
    assert executed == moe.active_flops(moe.ConvExperts(10, 6, 5, 3), plan, pixels=64)


def test_pixels_see_what_a_convolution_sees():
    torch.manual_seed(0)
    bank = moe.HeterogeneousBank([moe.ConvExperts(C, 6, k, 2) for k in (1, 5, 3)])
    x = torch.randn(2, C, 5, 7)
    plan = moe.dual_router(8, bank.group_sizes, 2)(torch.randn(70, 8), (2, 5, 7))
    every = torch.stack(
        [
            F.conv2d(x, group.kernels()[m], group.bias[m], padding=group.reach)
            for group in bank
            for m in range(group.num_experts)
        ],
        1,
    )  # [B, E, C, H, W]
    gates = moe.Pixels.of(x).from_rows(plan.gates)
    expected = (every * gates[:, :, None]).sum(1)
    done = moe.Pixels.of(x).from_rows(moe.dispatch(bank, moe.Neighbourhoods.of(x, bank.reach), plan))
    torch.testing.assert_close(done, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 9), (5, 7), (1, 1), (3, 4)])
def test_windows_with_a_halo_see_what_a_convolution_sees(shape):
    torch.manual_seed(0)
    bank = moe.HeterogeneousBank([moe.ConvExperts(C, 6, k, 2) for k in (1, 3)])
    x = torch.randn(2, C, *shape)
    windows = moe.Windows.of(x, 3, bank.reach)
    rows = windows.to_rows(x)
    plan = moe.dual_router(8, bank.group_sizes)(torch.randn(len(rows), 8), windows.grid)
    done = windows.from_rows(moe.dispatch(bank, rows, plan))
    spread = plan.gates.view(*windows.grid, -1).repeat_interleave(3, 1).repeat_interleave(3, 2)
    gates = spread[:, : shape[0], : shape[1]].permute(0, 3, 1, 2)
    every = torch.stack(
        [F.conv2d(x, g.kernels()[m], g.bias[m], padding=g.reach) for g in bank for m in range(2)], 1
    )
    torch.testing.assert_close(done, (every * gates[:, :, None]).sum(1), atol=1e-5, rtol=1e-5)


def test_adapters_leave_the_layer_alone_until_they_learn_and_can_be_merged_into_it():
    base = nn.Linear(6, 5).requires_grad_(False)
    bank, x = moe.LowRankExperts(6, 5, 3, 2, alpha=6), torch.randn(7, 6)
    layer = moe.MoE(moe.switch_router(6, 2), bank, shared=base)
    assert torch.equal(layer(x), base(x))
    nn.init.normal_(bank.b)
    plan = layer.router(x)
    each = torch.stack([F.linear(x, bank.merged(e, base), base.bias) - base(x) for e in range(2)], 1)
    torch.testing.assert_close(layer(x), base(x) + (each * plan.gates[:, :, None]).sum(1))


class Doubles:
    """Stands for a fitted estimator."""

    def __init__(self, classes=(0, 1)):
        self.classes_ = classes

    def predict(self, rows):
        assert type(rows).__module__ == "numpy"
        return rows.sum(1) * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opaque_experts_are_functions_or_estimators(dtype):
    bank = moe.ModuleExperts([Doubles(), lambda rows: rows.sum(axis=1)])
    x = torch.ones(9, 3, dtype=dtype)
    plan = moe.hash_router(2)(torch.arange(9))
    out = moe.dispatch(bank, x, plan)
    assert torch.equal(out, x.sum(1, keepdim=True) * torch.where(plan.experts == 0, 2, 1))
    nothing = replace(plan, kept=torch.zeros(9, 1, dtype=torch.bool))
    assert not moe.dispatch(bank, x, nothing).any()


def test_what_cannot_be_asked_and_what_would_not_be_trained_is_refused():
    with pytest.raises(ValueError, match="no method"):
        moe.ModuleExperts(["a word"])
    with pytest.raises(ValueError, match="would not be trained"):
        moe.Opaque(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="unlike classes"):
        moe.ModuleExperts([Doubles((0, 1)), Doubles((1, 0))])


def test_an_estimator_beside_a_module_that_learns():
    net = nn.Linear(3, 1)
    layer = moe.MoE(moe.softmax_router(3, 2), moe.ModuleExperts([Doubles(), net]))
    layer(torch.randn(5, 3)).sum().backward()
    assert net.weight.grad.abs().sum() > 0
    assert layer.router.score.gate.weight.grad.abs().sum() > 0


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


def test_a_kernel_that_sees_too_far_is_refused():
    bank, x, plan = setup("convolution_5")
    with pytest.raises(ValueError, match="needs reach=2, not 1"):
        moe.dispatch(bank, moe.Neighbourhoods.of(x, 1), plan)


def test_an_expert_that_is_not_there_is_refused():
    bank, x, plan = setup("feed_forward")
    for backend in ("loop", "grouped"):
        with pytest.raises(ValueError, match="chooses expert 4, there are 4"):
            moe.dispatch(bank, rows_of(bank, x), replace(plan, experts=plan.experts * 0 + 4), backend)


def test_frozen_modules_pass_gradients_and_take_none():
    bank = moe.ModuleExperts([nn.Linear(3, 3), nn.Linear(3, 3)], frozen=True)
    x = torch.randn(5, 3, requires_grad=True)
    moe.MoE(moe.softmax_router(3, 2), bank)(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in bank.parameters())


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


def test_convolutions_are_run_densely_where_every_pixel_of_a_large_image_wants_every_expert(monkeypatch):
    def chosen(name, top_k, kept=None):
        bank, x, plan = setup(name, top_k)
        return moe.choose_backend(bank, rows_of(bank, x), replace(plan, kept=kept))

    assert chosen("convolutions", E) == "grouped"
    monkeypatch.setitem(import_module("geomoe.moe.dispatch.run")._DENSE_PIXELS, "cpu", N)
    assert chosen("convolutions", E) == "dense"
    assert chosen("convolutions", E, kept=torch.ones(N, E, dtype=torch.bool)) == "grouped"
    assert chosen("convolutions", 2) == "grouped"
    assert chosen("feed_forward", E) == "grouped"
    assert chosen("depthwise", E) == "grouped"


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


def test_windows_are_for_convolutions():
    bank, x, plan = setup("feed_forward")
    with pytest.raises(ValueError, match="convolutions on pixels"):
        moe.dispatch(bank, rows_of(bank, x), plan, "window")


def test_a_plan_for_another_bank_is_refused():
    bank, x, plan = setup("feed_forward")
    with pytest.raises(ValueError, match=r"plan is for 30 rows and 4 experts.*29 and 4"):
        moe.dispatch(bank, rows_of(bank, x)[:29], plan)
    with pytest.raises(ValueError, match="backend='fast'"):
        moe.dispatch(bank, rows_of(bank, x), plan, "fast")
    with pytest.raises(ValueError, match="output channels"):
        moe.HeterogeneousBank([moe.ConvExperts(4, 6, 1, 2), moe.ConvExperts(4, 5, 3, 2)])
    with pytest.raises(ValueError, match="router knows 3 experts, the bank has 4"):
        moe.MoE(moe.switch_router(4, 3), bank)


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


def test_on_a_cpu_experts_compute_in_single_precision_under_autocast():
    """And so the result is the rounded one of single precision, where half precision would be further off."""
    bank, x, plan = setup("feed_forward", 2)
    exact = moe.dispatch(bank, rows_of(bank, x), plan, "grouped")
    with torch.autocast("cpu", torch.bfloat16):
        rough = moe.dispatch(bank, rows_of(bank, x), plan, "grouped")
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=1e-3, rtol=2**-6)
    assert not torch.equal(rough.float(), exact)


def test_choices_apart_add_up_to_the_whole():
    bank, x, plan = setup("feed_forward", 2)
    rows = rows_of(bank, x)
    apart = [moe.dispatch(bank, rows, plan.choice(j)) for j in range(plan.top_k)]
    assert [plan.choice(j).top_k for j in range(plan.top_k)] == [1, 1]
    torch.testing.assert_close(sum(apart), moe.dispatch(bank, rows, plan), atol=1e-6, rtol=1e-5)


def noisy_expert():
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))


def test_frozen_modules_stay_as_they_are_in_training():
    experts = [noisy_expert(), noisy_expert()]
    layer = moe.MoE(moe.softmax_router(3, 2), moe.ModuleExperts(experts, frozen=True))
    x = torch.randn(50, 3) + 3
    before = {k: v.clone() for k, v in layer.bank.state_dict().items()}
    for model in (layer, nn.Sequential(layer).train()):  # also where a whole model is put to training
        torch.testing.assert_close(model(x), model(x), rtol=0, atol=0)
    assert layer.training
    assert not any(module.training for module in layer.bank.experts.modules())
    for name, value in layer.bank.state_dict().items():
        assert torch.equal(value, before[name]), name
    learning = moe.ModuleExperts([noisy_expert(), noisy_expert()])
    assert learning.train().experts[0].training
    assert not learning.eval().experts[0].training


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


def test_what_is_run_for_its_shape_alone_leaves_no_trace():
    bank = moe.ModuleExperts([noisy_expert(), noisy_expert()])
    bank.experts[0][2].eval()
    before = {k: v.clone() for k, v in bank.state_dict().items()}
    plan = moe.hash_router(2)(torch.arange(5))
    nothing = replace(plan, kept=torch.zeros(5, 1, dtype=torch.bool))
    assert moe.dispatch(bank, torch.randn(5, 3), nothing).shape == (5, 6)
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())
    assert [module.training for module in bank.experts[0]] == [True, True, False]


def test_what_stands_beside_has_second_derivatives_too():
    from geomoe.moe.experts.bank import _Beside

    x, p = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradgradcheck(lambda x, p: _Beside.apply(x.square(), p), (x, p))
