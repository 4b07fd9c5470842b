"""Whole numbers with the means of what they were made of."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geomoe.raster.read.radiometry import limits, quantise
from geomoe.raster.read.rounding import round_keeping_means


def squares(data: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """``[H * s, W * s]`` to ``[H, W, s * s]``."""
    height, width = (side // scale for side in data.shape)
    return data.reshape(height, scale, width, scale).swapaxes(1, 2).reshape(height, width, -1)


def drawn(scale: int, spread: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numbers around small whole ones, and these, the means of their squares."""
    rng = np.random.default_rng(scale)
    means = rng.integers(-4, 5, (30, 20)).astype(float)
    data = rng.normal(0, spread, (30 * scale, 20 * scale))
    data += (means - squares(data, scale).mean(2)).repeat(scale, 0).repeat(scale, 1)
    return data, means


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("nodata", [None, 0.0, 2.0])
def test_means_are_kept_and_nodata_is_not_made(scale: int, spread: float, nodata: float | None) -> None:
    data, means = drawn(scale, spread)
    whole = round_keeping_means(data, means, nodata)
    assert np.array_equal(whole, np.rint(whole))
    assert np.array_equal(squares(whole, scale).mean(2), means)
    if nodata is None:
        assert np.abs(whole - data).max() < 1 + 1e-9
    else:
        assert not (squares(whole, scale) == nodata)[means != nodata].any()
        assert np.abs(whole - data).max() < scale**2


def test_those_nearest_to_the_next_number_are_rounded_up_and_the_first_of_equals() -> None:
    data = np.array([[0.6, 0.2], [0.7, 0.5]])
    assert round_keeping_means(data, np.array([[0.5]]), None).tolist() == [[1, 0], [1, 0]]
    assert round_keeping_means(np.full((2, 2), 0.5), np.array([[0.5]]), None).tolist() == [[1, 1], [0, 0]]


def test_limits_leave_nodata_out_where_it_ends_the_range() -> None:
    assert limits("uint8", None) == limits("uint8", 7) == limits("uint8", -9999.0) == (0, 255)
    assert (limits("uint8", 0), limits("uint8", 255)) == ((1, 255), (0, 254))
    assert limits("float64", 0.0)[1] == np.finfo(np.float32).max


def test_what_is_not_valid_disturbs_no_other_square() -> None:
    data = np.array([[[5.2, 4.8, 9.0, 9.0], [5.4, 4.6, 9.0, 9.0]]])
    valid = np.array([[[True, True, False, False]] * 2])
    for held in (np.nan, np.inf, 1e38, -9.0):
        means = np.array([[[5.0, held]]], dtype=np.float32)
        made = quantise(data, valid, "int16", -9, means)
        assert made[0, :, :2].mean() == 5
        assert (made[0, :, 2:] == -9).all()
