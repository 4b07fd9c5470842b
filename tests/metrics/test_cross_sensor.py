import math

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.metrics.cross_sensor import cpsnr
from geomoe.metrics.image import psnr


def noise(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(result, truth, clear):
    """The challenge's formula, one band."""
    height, width = truth.shape
    middle = result[3:-3, 3:-3]
    best = -math.inf
    for u in range(7):
        for v in range(7):
            window = truth[u : height - 6 + u, v : width - 6 + v]
            mask = clear[u : height - 6 + u, v : width - 6 + v]
            n = mask.sum()
            bias = ((window - middle) * mask).sum() / n
            cmse = (((window - middle - bias) * mask) ** 2).sum() / n
            best = max(best, -10 * math.log10(cmse))
    return best


def test_equals_the_formula():
    truth = noise(0, 1, 20, 24)
    result = truth + 0.1 * noise(1, 1, 20, 24)
    clear = noise(2, 20, 24) > 0.4
    expected = by_loops(result[0].numpy(), truth[0].numpy(), clear.numpy())
    assert cpsnr(result, truth, clear) == pytest.approx(expected)
    assert cpsnr(result * 255, truth * 255, clear, peak=255) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [(0, 0), (3, -3), (-1, 2)])
def test_shifts_and_bias_cost_nothing(shift):
    truth = noise(0, 2, 30, 30)
    bias = torch.tensor([0.1, -0.05], dtype=torch.float64).view(2, 1, 1)
    result = truth.roll(shift, (1, 2)) + bias + 0.01 * noise(1, 2, 30, 30)
    assert cpsnr(result, truth) == pytest.approx(10 * math.log10(12 / 0.01**2), abs=0.3)  # variance 1/12
    assert psnr(result, truth, peak=1) < 25


def test_shifts_of_four_are_too_far():
    truth = noise(0, 1, 30, 30)
    assert cpsnr(truth.roll(3, 1), truth) > 200
    assert cpsnr(truth.roll(4, 1), truth) < 12
    assert cpsnr(truth.roll(4, 1), truth, shift=4) > 200


def test_what_is_not_clear_is_not_compared():
    truth = noise(0, 1, 20, 20)
    clear = torch.ones(20, 20, dtype=torch.bool)
    clear[5:9, 6:12] = False
    result = truth + 0.01 * noise(1, 1, 20, 20)
    score = cpsnr(result, truth, clear)
    truth[:, ~clear] = 1e6
    assert cpsnr(result, truth, clear) == score
    truth[:, ~clear] = np.nan
    assert cpsnr(result, truth, clear) == score


def test_what_cannot_be_compared_is_refused():
    truth = noise(0, 1, 20, 20)
    with pytest.raises(GeomoeError, match="no pixel of the truth is clear"):
        cpsnr(truth, truth, torch.zeros(20, 20, dtype=torch.bool))
    with pytest.raises(GeomoeError, match="too small for shifts of 3"):
        cpsnr(truth[:, :6], truth[:, :6])
    with pytest.raises(GeomoeError, match="differ in size"):
        cpsnr(truth, truth, torch.ones(20, 21, dtype=torch.bool))
