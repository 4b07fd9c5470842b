"""Invalid pixels lend nothing to their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from geomoe.raster.validity import fill_invalid, upsample_mask


@pytest.mark.parametrize("blank", [0.0, -9999.0, np.nan, np.inf])
def test_fill_does_not_depend_on_what_stood_there(blank: float) -> None:
    rng = np.random.default_rng(0)
    data = rng.random((2, 9, 11), dtype=np.float32)
    valid = rng.random(data.shape) > 0.4
    other = np.where(valid, data, np.float32(blank))
    assert np.array_equal(fill_invalid(data, valid), fill_invalid(other, valid))


def test_fill_takes_the_nearest_of_the_same_band() -> None:
    data = np.array([[[1, 0, 0, 0, 9]], [[5, 6, 7, 8, 4]]], dtype=np.float32)
    valid = np.array([[[1, 0, 0, 0, 1]], [[1, 1, 1, 1, 1]]], dtype=bool)
    filled = fill_invalid(data, valid)
    assert filled[0, 0, [0, 1, 3, 4]].tolist() == [1, 1, 9, 9]
    assert np.array_equal(filled[1], data[1])


def test_band_without_a_valid_pixel_becomes_zero() -> None:
    data = np.full((1, 2, 3), np.nan, dtype=np.float32)
    assert np.array_equal(fill_invalid(data, np.zeros(data.shape, dtype=bool)), np.zeros((1, 2, 3)))


def test_mask_grows_by_squares() -> None:
    mask = np.array([[True, False]])
    assert np.array_equal(upsample_mask(mask, 2), [[True, True, False, False]] * 2)
