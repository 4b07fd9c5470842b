import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from geomoe import GeomoeError
from geomoe.metrics.spatial import phase_shift, scc


def noise(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(image, rows, columns):
    spectra = [ndimage.fourier_shift(np.fft.fft2(band), (rows, columns)) for band in image.numpy()]
    return torch.from_numpy(np.stack([np.fft.ifft2(spectrum).real for spectrum in spectra]))


def test_scc_is_the_correlation_of_laplacians():
    truth, other = noise(0, 2, 12, 15), noise(1, 2, 12, 15)
    result = 0.7 * truth + 0.3 * other
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8
    expected = []
    for a, b in zip(result.numpy(), truth.numpy(), strict=True):
        high = [ndimage.convolve(band, kernel)[1:-1, 1:-1].ravel() for band in (a, b)]
        expected.append(np.corrcoef(*high)[0, 1])
    assert scc(result, truth) == pytest.approx(np.mean(expected))


def test_scc_sees_detail_alone():
    truth = noise(0, 3, 12, 15)
    y, x = torch.meshgrid(torch.arange(12.0).double(), torch.arange(15.0).double(), indexing="ij")
    assert scc(truth, truth) == pytest.approx(1)
    assert scc(2 * truth + 0.1 * x - y, truth) == pytest.approx(1)
    assert scc(1 - truth, truth) == pytest.approx(-1)
    assert math.isnan(scc((0.1 * x + 0.3 * y).expand(3, 12, 15), truth))
    with pytest.raises(GeomoeError, match="too small"):
        scc(truth[:, :2], truth[:, :2])


def test_whole_shifts_point_down_and_right():
    image = noise(0, 2, 16, 21)
    assert phase_shift(image, image) == (0, 0)
    for shift in ((3, -5), (-2, 10), (8, 0)):
        assert phase_shift(image.roll(shift, (1, 2)), image) == pytest.approx(shift)
        assert phase_shift(image, image.roll(shift, (1, 2)))[1] == pytest.approx(-shift[1])


@pytest.mark.parametrize("shift", [(0.25, -0.4), (2.31, 1.77), (-0.02, 0.5)])
def test_parts_of_a_pixel_are_found(shift):
    image = noise(0, 2, 17, 23)  # odd sides: no frequency whose phase a shift leaves open
    result = moved(image, *shift)
    assert phase_shift(result, image) == pytest.approx(shift, abs=0.01)
    mean = result.mean(0).numpy(), image.mean(0).numpy()
    peer, _, _ = phase_cross_correlation(*mean, upsample_factor=100)
    assert phase_shift(result, image) == pytest.approx(tuple(peer), abs=0.011)


def test_gain_and_offset_are_no_shift_and_flat_images_have_none():
    image = noise(0, 2, 16, 16)
    assert phase_shift(3 * image.roll(1, 1) + 5, image) == pytest.approx((1, 0))
    assert all(math.isnan(value) for value in phase_shift(torch.full_like(image, 0.3), image))
