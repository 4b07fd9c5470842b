"""What single banks of experts do and refuse."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geomoe import moe
from tests.moe.test_every_bank import C, E, N, rows_of, setup


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


@pytest.mark.parametrize("backend", ["grouped", "loop", "window", "dense"])
def test_a_dilated_convolution_sees_every_second_pixel(backend):
    torch.manual_seed(0)
    bank = moe.HeterogeneousBank([moe.ConvExperts(C, 6, 3, 2, dilation=2), moe.ConvExperts(C, 6, 1, 1)])
    assert bank.reach == 2
    x = torch.randn(2, C, 5, 7)
    plan = moe.Router(moe.LinearScore(8, 3), moe.TopK(2))(torch.randn(70, 8), (2, 5, 7))
    each = [
        F.conv2d(x, g.kernels()[m], g.bias[m], padding=g.reach, dilation=g.dilation)
        for g in bank
        for m in range(g.num_experts)
    ]
    gates = moe.Pixels.of(x).from_rows(plan.gates)
    expected = (torch.stack(each, 1) * gates[:, :, None]).sum(1)
    done = moe.dispatch(bank, moe.Neighbourhoods.of(x, bank.reach), plan, backend)
    torch.testing.assert_close(moe.Pixels.of(x).from_rows(done), expected, atol=1e-5, rtol=1e-5)
    windows = moe.Windows.of(x, 4, 2)
    rows = windows.to_rows(x)
    whole = windows.from_rows(bank.expert(0, bank.take(rows, torch.arange(len(rows)), 0)))
    torch.testing.assert_close(whole, each[0], atol=1e-5, rtol=1e-5)


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
