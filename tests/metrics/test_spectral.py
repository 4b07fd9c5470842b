import math

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.metrics.spectral import ergas, sam


def spectra(*values):
    """``[bands, 1, pixels]`` of one spectrum a pixel."""
    return torch.tensor(values, dtype=torch.float32).T[:, None]


def test_ergas_at_values_worked_out_by_hand():
    truth = torch.stack([torch.full((4, 4), 10.0), torch.full((4, 4), 40.0)])
    result = truth + torch.tensor([1.0, -8.0]).view(2, 1, 1)
    # RMSE over mean: 0.1 and 0.2; sqrt((0.01 + 0.04) / 2) * 100 / 4
    assert ergas(result, truth, 4) == pytest.approx(25 * math.sqrt(0.025))
    assert ergas(result, truth, 2) == pytest.approx(50 * math.sqrt(0.025))
    assert ergas(result / 255, truth / 255, 4) == pytest.approx(25 * math.sqrt(0.025), rel=1e-5)
    assert ergas(truth, truth, 4) == 0
    assert math.isnan(ergas(result, truth * torch.tensor([0.0, 1.0]).view(2, 1, 1), 4))


def test_ergas_equals_its_formula_in_numpy():
    rng = np.random.default_rng(0)
    truth = rng.random((4, 9, 7)) + 0.1
    result = truth + rng.normal(0, 0.1, truth.shape)
    ratio = [np.sqrt(np.mean((r - t) ** 2)) / t.mean() for r, t in zip(result, truth, strict=True)]
    expected = 100 / 3 * np.sqrt(np.mean(np.square(ratio)))
    assert ergas(torch.from_numpy(result), torch.from_numpy(truth), 3) == pytest.approx(expected)


def test_angles_known_by_hand():
    assert sam(spectra((1, 0)), spectra((1, 1))) == pytest.approx(45)
    assert sam(spectra((1, 0), (0, 2)), spectra((1, 1), (3, 0))) == pytest.approx((45 + 90) / 2)
    assert sam(spectra((1, 1, 0)), spectra((0, 1, 1))) == pytest.approx(60)
    assert sam(spectra((1, -1)), spectra((-1, 1))) == pytest.approx(180)


def test_a_gain_of_each_pixel_changes_no_angle():
    g = torch.Generator().manual_seed(0)
    truth = torch.rand(5, 8, 8, generator=g)
    gain = torch.rand(1, 8, 8, generator=g) + 0.5
    assert sam(truth * gain, truth) == pytest.approx(0, abs=1e-2)  # rounding of float32 inputs
    assert sam(truth, truth) == pytest.approx(0, abs=1e-5)  # the cosine may round to beyond 1
    other = torch.rand(5, 8, 8, generator=g)
    assert sam(other * gain, truth) == pytest.approx(sam(other, truth), abs=1e-4)


def test_pixels_without_an_angle_are_left_out():
    zero = (0, 0)
    assert sam(spectra((1, 0), zero, (1, 2)), spectra((1, 1), (1, 2), zero)) == pytest.approx(45)
    assert math.isnan(sam(spectra(zero), spectra((1, 2))))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(GeomoeError, match="two bands or more"):
        sam(torch.ones(1, 4, 4), torch.ones(1, 4, 4))
    with pytest.raises(GeomoeError, match="differ in shape"):
        ergas(torch.ones(3, 4, 4), torch.ones(3, 4, 5), 4)
    with pytest.raises(GeomoeError, match="bands, height, width"):
        sam(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
