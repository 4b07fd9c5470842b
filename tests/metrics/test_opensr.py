import math

import pytest
import torch
import torch.nn.functional as F

from geomoe import GeomoeError
from geomoe.metrics.opensr import correctness, opensr


def mean(x, scale):
    return F.avg_pool2d(x, scale)


@pytest.fixture
def images():
    truth = torch.rand(3, 64, 72, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low = mean(truth[None], 4)[0]
    return truth, low, F.interpolate(low[None], scale_factor=4, mode="bilinear")[0]


def test_the_truth_itself_is_consistent_and_improves_every_pixel(images):
    truth, low, up = images
    found = opensr(truth, truth, low, 4, mean)
    assert (found.reflectance, found.spatial) == (0, 0)
    assert found.spectral == pytest.approx(0, abs=1e-5)
    assert found.synthesis == pytest.approx(float((truth - up)[:, 16:-16, 16:-16].abs().mean()))
    assert (found.improvement, found.omission, found.hallucination) == (1, 0, 0)


def test_the_upsampled_input_adds_nothing_and_omits_every_pixel(images):
    truth, low, up = images
    found = opensr(up, truth, low, 4, mean)
    assert found.synthesis == 0
    assert (found.improvement, found.omission, found.hallucination) == (0, 1, 0)
    bicubic = opensr(up, truth, low, 4, mean, upsample="bicubic")
    assert bicubic.synthesis > 0


def test_what_is_far_from_both_is_hallucinated(images):
    truth, low, _ = images
    found = opensr(truth + 3, truth, low, 4, mean)
    assert found.hallucination == 1
    assert found.reflectance == pytest.approx(3)
    found = opensr(truth.roll(8, 2), truth, low, 4, mean)
    assert found.spatial == pytest.approx(2)  # of the input's pixels
    assert found.hallucination > 0.3 > found.improvement


def test_pixels_classed_by_hand():
    """One band, reference distance 1: truth 1, upsampled 0."""
    truth, up = torch.ones(1, 1, 6).double(), torch.zeros(1, 1, 6).double()

    def classes(*values):
        return correctness(torch.tensor(values).double().view(1, 1, 6), truth, up)

    # On the way h = 0, so that the nearer end wins; 0.5 is a tie, and goes to omission.
    assert classes(0.9, 0.6, 0.51, 0.5, 0.4, 0.0) == pytest.approx((3 / 6, 3 / 6, 0))
    # At 1.3: a = 0.3, b = 1.3, h = 0.6; improvement 0.3 + 1.3 (1 - e^-0.48) = 0.796, hallucination
    # e^-0.312 = 0.732.
    assert classes(1.3, 1.3, 1.3, 1.0, 1.0, 1.0) == pytest.approx((3 / 6, 0, 3 / 6))
    # At 1.2: h = 0.4, improvement 0.2 + 1.2 (1 - e^-0.32) = 0.529, hallucination e^-0.192 = 0.825.
    assert classes(1.2, 1.2, 1.2, -0.2, -0.2, -0.3) == pytest.approx((3 / 6, 2 / 6, 1 / 6))


def test_pixels_with_nothing_to_draw_are_left_out():
    truth, up = torch.tensor([[[1.0, 0.001]]]).double(), torch.zeros(1, 1, 2).double()
    result = torch.tensor([[[1.0, 9.0]]]).double()
    assert correctness(result, truth, up) == (1, 0, 0)
    assert all(math.isnan(share) for share in correctness(result, up, up))


def test_images_that_do_not_fit_are_refused(images):
    truth, low, _ = images
    with pytest.raises(GeomoeError, match="too small for a border of 32"):
        opensr(truth, truth, low, 4, mean, border=32)
    with pytest.raises(GeomoeError, match="differ in shape"):
        opensr(truth, truth, low[:, 1:], 4, mean)
    with pytest.raises(GeomoeError, match="two bands"):
        opensr(truth[:1], truth[:1], low[:1], 4, mean)
