"""Invalid pixels lend nothing to their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from geomoe.raster.read.validity import fill_invalid, upsample_mask


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


def test_far_from_its_own_band_a_pixel_takes_the_mean_of_the_others() -> None:
    data = np.zeros((3, 1, 40), dtype=np.float32)
    valid = np.ones(data.shape, dtype=bool)
    data[0], data[1] = 1, 2
    data[2, 0, 0], valid[2, 0, 1:] = 9, False
    filled = fill_invalid(data, valid)
    assert filled[2, 0, 5] == 9
    assert filled[2, 0, 20] == 1.5
    # Where a tile ends does not matter: one that does not see the band's only pixel fills alike.
    assert np.array_equal(fill_invalid(data[..., 16:], valid[..., 16:]), filled[..., 16:])


def test_pixels_far_from_every_band_take_the_nearest_that_has_a_value() -> None:
    data = np.full((2, 1, 40), np.nan, dtype=np.float32)
    valid = np.zeros(data.shape, dtype=bool)
    data[:, 0, 3], valid[:, 0, 3] = (4, 8), True
    filled = fill_invalid(data, valid)
    assert np.array_equal(filled[:, 0, 39], [4, 8])
    assert np.isfinite(filled).all()


def test_mask_grows_by_squares() -> None:
    mask = np.array([[True, False]])
    assert np.array_equal(upsample_mask(mask, 2), [[True, True, False, False]] * 2)
