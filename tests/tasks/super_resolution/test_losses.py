import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from geomoe import GeomoeError
from geomoe.metrics.image import ssim as ssim_metric
from geomoe.tasks.super_resolution_losses import LOSSES, charbonnier, edge, frequency, l1, ncc, psnr, ssim
from geomoe.tasks.task import check_losses

every = pytest.mark.parametrize("name", LOSSES)


def pair(seed=0, shape=(2, 3, 16, 18), dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    truth = torch.rand(shape, generator=g, dtype=dtype)
    return (truth + 0.1 * torch.randn(shape, generator=g, dtype=dtype)).clamp(0, 1), truth


@every
def test_equal_images_cost_nothing_and_others_something(name):
    result, truth = pair()
    assert float(LOSSES[name](truth, truth)) == pytest.approx(0, abs=1e-7)
    worse = truth + 2 * (result - truth)
    assert 0 < LOSSES[name](result, truth) < LOSSES[name](worse, truth)


@every
def test_gradients_are_those_of_the_function(name):
    result, truth = pair(shape=(2, 2, 12, 13), dtype=torch.float64)
    assert torch.autograd.gradcheck(LOSSES[name], (result.requires_grad_(), truth))


@every
@pytest.mark.parametrize("case", ["equal", "flat result", "flat truth", "both flat", "both black"])
def test_gradients_are_finite_where_something_vanishes(name, case):
    result, truth = pair()
    flat = torch.full_like(truth, 0.3)
    result, truth = {
        "equal": (truth, truth),
        "flat result": (flat, truth),
        "flat truth": (result, flat),
        "both flat": (flat, flat + 0.1),
        "both black": (flat * 0, flat * 0),
    }[case]
    result = result.clone().requires_grad_()
    loss = LOSSES[name](result, truth)
    loss.backward()
    assert loss.isfinite()
    assert result.grad.isfinite().all()
    assert result.grad.abs().max() < 100
    if case in ("equal", "both black"):
        assert result.grad.abs().max() < 1e-5


@every
def test_half_precision_and_autocast_are_computed_in_float32(name):
    result, truth = (t.bfloat16() for t in pair())
    found = LOSSES[name](result, truth.float())
    assert found.dtype == torch.float32
    assert found == LOSSES[name](result.float(), truth.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert LOSSES[name](result, truth) == found
    leaf = result.clone().requires_grad_()
    LOSSES[name](leaf, truth).backward()
    assert leaf.grad.dtype == torch.bfloat16


@every
def test_a_term_is_the_mean_of_its_images(name):
    result, truth = pair(shape=(3, 2, 16, 16), dtype=torch.float64)
    alone = [float(LOSSES[name](r[None], t[None])) for r, t in zip(result, truth, strict=True)]
    assert float(LOSSES[name](result, truth)) == pytest.approx(sum(alone) / 3)


def test_l1_and_charbonnier_at_known_values():
    zero = torch.zeros(1, 1, 2, 2)
    assert float(l1(zero + 0.25, zero)) == 0.25
    assert float(charbonnier(zero + 0.25, zero)) == pytest.approx(math.hypot(0.25, 1e-3) - 1e-3)
    assert float(charbonnier(zero + 1e-5, zero)) == pytest.approx(0.5e-7, rel=1e-3)  # square: d^2 / (2 eps)


def test_the_psnr_loss_falls_by_what_psnr_rises():
    result, truth = pair(shape=(1, 3, 20, 22), dtype=torch.float64)
    half = truth + (result - truth) / 2
    decibels = 10 / math.log(10) * float(psnr(result, truth) - psnr(half, truth))
    assert decibels == pytest.approx(20 * math.log10(2), abs=0.05)
    zero = torch.zeros(1, 1, 8, 8)
    assert float(psnr(zero + 1e-5**0.5, zero)) == pytest.approx(math.log(2))  # at 50 dB


def test_ssim_is_one_less_the_metric():
    result, truth = pair(shape=(1, 3, 20, 22))
    assert float(ssim(result, truth)) == pytest.approx(
        1 - ssim_metric(result[0], truth[0], peak=1.0), abs=1e-5
    )
    assert 0 < ssim(result, truth) < 1 < ssim(1 - truth, truth) <= 2


def test_ncc_is_pearsons_correlation_of_each_band():
    result, truth = pair(shape=(2, 3, 9, 8), dtype=torch.float64)
    planes = zip(result.reshape(6, -1), truth.reshape(6, -1), strict=True)
    r = [np.corrcoef(a, b)[0, 1] for a, b in planes]
    assert float(ncc(result, truth)) == pytest.approx(1 - np.mean(r), abs=1e-6)
    assert float(ncc(1 - truth, truth)) == pytest.approx(2, abs=1e-6)


def test_ncc_is_blind_to_gain_and_offset_of_each_band():
    result, truth = pair(dtype=torch.float64)
    gain = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64).view(3, 1, 1)
    assert float(ncc(result * gain + 0.2 * gain, truth)) == pytest.approx(float(ncc(result, truth)), abs=1e-5)
    assert float(l1(result * gain, truth)) != pytest.approx(float(l1(result, truth)))


def test_other_images_of_the_batch_do_not_touch_ones_gradient():
    """In the formulation that mixes bands with the batch they do."""
    result, truth = pair(shape=(4, 3, 16, 16), dtype=torch.float64)

    def first(order):
        leaf = result[order].clone().requires_grad_()
        ncc(leaf, truth[order]).backward()
        return leaf.grad[0]

    torch.testing.assert_close(first([0, 1, 2, 3]), first([0, 3, 1, 2]))
    torch.testing.assert_close(first([0, 1]), first([0, 2]))
    assert float(ncc(result, truth)) == pytest.approx(float(ncc(result[[2, 0, 3, 1]], truth[[2, 0, 3, 1]])))


def test_frequency_at_known_values():
    zero = torch.zeros(1, 1, 8, 8)
    # A constant c has one coefficient, 8 c, in the 8 x 5 x 2 real and imaginary parts.
    assert float(frequency(zero + 0.5, zero)) == pytest.approx(4 / 80)
    y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    # A sine of amplitude a has two imaginary coefficients of 8 a / 2, one of them in the half kept.
    wave = 0.3 * torch.sin(2 * math.pi * (2 * y + x) / 8)[None, None]
    assert float(frequency(wave, zero)) == pytest.approx(0.3 * 4 / 80, abs=1e-7)


def test_edge_sees_edges_and_not_planes():
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    truth = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    plane = (0.2 + 0.01 * x + 0.02 * y).double()[None, None]
    assert float(edge(plane, truth)) == pytest.approx(0, abs=1e-9)
    step = (x > 7).double()[None, None]
    blurred = ndimage.gaussian_filter(step[0, 0].numpy(), 1.0, truncate=2)  # five pixels
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8
    difference = ndimage.convolve(blurred, kernel)[3:-3, 3:-3]
    expected = (np.sqrt(difference**2 + 1e-6) - 1e-3).mean()
    assert float(edge(step, truth)) == pytest.approx(expected)


def test_patches_that_are_too_small_are_refused():
    small = torch.zeros(1, 3, 10, 16)
    with pytest.raises(GeomoeError, match=r"ssim needs patches of 11 x 11 .*16 x 10"):
        ssim(small, small)
    with pytest.raises(GeomoeError, match="edge needs"):
        edge(small[..., :6], small[..., :6])


def test_weights_are_checked():
    assert check_losses({"ssim": 0.1, "l1": 0}, LOSSES) == {"ssim": 0.1, "l1": 0}
    with pytest.raises(
        GeomoeError, match="no loss is called 'lpips'; there are: l1, charbonnier, psnr, ssim"
    ):
        check_losses({"lpips": 1.0}, LOSSES)
    for weights in ({"l1": -1.0}, {"l1": math.nan}, {"l1": 0.0}, {}):
        with pytest.raises(GeomoeError, match="weight"):
            check_losses(weights, LOSSES)
