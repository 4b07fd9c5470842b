import math

import pytest
import torch

from geomoe import GeomoeError
from geomoe.metrics.invention import noise_gain, overshoot, span, worst_error


def nearest(low, scale):
    return low.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_the_worst_error_is_that_of_one_pixel():
    truth = noise(2, 8, 8)
    result = truth.clone()
    result[1, 3, 4] -= 0.25
    assert worst_error(result, truth) == pytest.approx(0.25)
    assert worst_error(truth, truth) == 0
    with pytest.raises(GeomoeError, match="differ in shape"):
        worst_error(truth, truth[:, :4])


def test_noise_that_is_doubled_in_one_band_has_a_gain_of_two():
    low = noise(2, 16, 16)
    assert noise_gain(nearest(low, 2), low) == pytest.approx(1, abs=1e-2)
    assert noise_gain(nearest(low * torch.tensor([1.0, 2])[:, None, None], 2), low) == pytest.approx(
        2, abs=1e-2
    )
    assert math.isnan(noise_gain(noise(2, 32, 32), torch.ones(2, 16, 16)))


def test_a_value_counts_as_overshoot_beyond_all_of_the_25_pixels_and_the_tolerance():
    low = noise(1, 20, 20)
    room = 0.05 * span(low)[0]
    around = low[0, 8:13, 8:13]
    for value, beyond in (
        (around.max() + 0.9 * room, 0),
        (around.max() + 1.1 * room, 1),
        (around.min() - 0.9 * room, 0),
        (around.min() - 1.1 * room, 1),
    ):
        result = nearest(low, 2)
        result[0, 20, 21] = value  # drawn in the pixel 10, 10
        assert overshoot(result, low, 2) * 1600 == pytest.approx(beyond)


def test_the_scenes_range_leaves_out_its_most_unusual_pixels():
    low = noise(1, 100, 100)
    low[0, 0, 0] = 1000
    assert span(low)[0] == pytest.approx(1, abs=0.01)
    assert span(low, low < 0.5)[0] == pytest.approx(0.5, abs=0.01)


def test_no_value_counts_near_a_pixel_without_data():
    low = noise(2, 20, 20)
    valid = torch.ones(2, 20, 20, dtype=torch.bool)
    valid[0, 10, 10] = False
    result = nearest(low, 2)
    result[0, 2 * 8 : 2 * 13, 2 * 8 : 2 * 13] = 100  # of the 25 pixels that have it among their 5 x 5
    result[1, 0, 0] = 100
    assert overshoot(result, low, 2, valid=valid) * (2 * 1600 - 100) == pytest.approx(1)
    assert math.isnan(overshoot(result, low, 2, valid=torch.zeros_like(valid)))
    with pytest.raises(GeomoeError, match="not 4 times"):
        overshoot(result, low, 4)
