import math

import pytest
import torch
import torch.nn.functional as F

from geomoe import GeomoeError
from geomoe.metrics.consistency import low_resolution_consistency


def mean(x, scale):
    return F.avg_pool2d(x, scale)


def test_a_result_that_gives_its_input_back_is_consistent():
    low = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0))
    result = low.repeat_interleave(4, 1).repeat_interleave(4, 2)
    detail = torch.tensor([1.0, -1, -1, 1]).repeat(5)  # of mean 0 in every block of four
    found = low_resolution_consistency(result + 0.2 * detail[:, None], low, 4, mean)
    assert found.l1 == pytest.approx(0, abs=1e-6)
    assert found.psnr > 120
    exact = torch.full((3, 5, 6), 0.5)
    assert low_resolution_consistency(torch.full((3, 20, 24), 0.5), exact, 4, mean).psnr == math.inf


def test_an_offset_is_its_distance():
    low = torch.full((2, 4, 4), 0.5)
    found = low_resolution_consistency(torch.full((2, 8, 8), 0.6), low, 2, mean)
    assert found.l1 == pytest.approx(0.1)
    assert found.psnr == pytest.approx(20, abs=1e-4)
    with pytest.raises(GeomoeError, match="differ in shape"):
        low_resolution_consistency(torch.zeros(2, 8, 8), low, 4, mean)
