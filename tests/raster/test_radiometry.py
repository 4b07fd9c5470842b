"""Values reach the model's range and come back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from geomoe.raster.read.radiometry import decide_radiometry, quantise
from geomoe.raster.read.sample import SceneSample


def _sample(*bands: np.ndarray) -> SceneSample:
    return SceneSample(tuple(b.astype(np.float32).ravel() for b in bands), 1.0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_every_integer_value_comes_back(dtype: str) -> None:
    info = np.iinfo(dtype)
    every = np.arange(info.min, info.max + 1)
    narrow = np.linspace(100, 103, 50)  # percentiles far from most values
    radiometry = decide_radiometry(dtype, _sample(every, narrow))
    data = np.stack([every, every])[:, None].astype(np.float32)  # [2, 1, N]
    back = radiometry.to_source(radiometry.to_model(data))
    valid = np.ones(data.shape, dtype=bool)
    assert np.array_equal(quantise(back, valid, dtype, None), data.astype(dtype))


def test_uint8_is_divided_by_255_and_nothing_else() -> None:
    radiometry = decide_radiometry("uint8", _sample(np.array([100, 110])))
    assert radiometry.to_model(
        np.array([[[0, 51, 255]]], dtype=np.float32)
    ).ravel().tolist() == pytest.approx([0, 0.2, 1])


def test_stretch_is_robust_and_does_not_clip() -> None:
    values = np.concatenate([np.linspace(200, 1200, 100_000), [60_000] * 5])
    radiometry = decide_radiometry("uint16", _sample(values))
    assert radiometry.low[0] == pytest.approx(201, abs=1)
    assert radiometry.high[0] == pytest.approx(1199, abs=1)
    assert radiometry.to_model(np.array([[[60_000.0]]], dtype=np.float32)).item() > 50


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("value", [0, 1, 7000])
def test_constant_band_has_a_gain(dtype: str, value: int) -> None:
    radiometry = decide_radiometry(dtype, _sample(np.full(50, value)))
    assert radiometry.high[0] > radiometry.low[0]
    data = np.full((1, 2, 2), value, dtype=np.float32)
    assert np.array_equal(radiometry.to_model(data), np.zeros((1, 2, 2)))
    assert np.array_equal(radiometry.to_source(radiometry.to_model(data)), data)


def test_rounds_half_to_even_and_clips() -> None:
    data = np.array([[[0.5, 1.5, 2.5, -3, 255.4, 300]]])
    got = quantise(data, np.ones(data.shape, dtype=bool), "uint8", None)
    assert got.ravel().tolist() == [0, 2, 2, 0, 255, 255]


@pytest.mark.parametrize(
    ("dtype", "nodata", "moved"),
    [
        ("uint8", 0, 1),
        ("uint8", 255, 254),
        ("int16", -32768, -32767),
        ("int16", 32767, 32766),
        ("uint16", 9, 10),
    ],
)
def test_valid_pixels_keep_off_nodata(dtype: str, nodata: int, moved: int) -> None:
    data = np.full((1, 1, 2), float(nodata))
    got = quantise(data, np.array([[[True, False]]]), dtype, nodata)
    assert got.ravel().tolist() == [moved, nodata]


@pytest.mark.parametrize("nodata", [0.0, -9999.0, float(np.finfo(np.float32).min), 1e-20])
def test_valid_floats_keep_off_nodata(nodata: float) -> None:
    data = np.array([[[nodata, np.nextafter(np.float32(nodata), np.float32(1)), 5.0]]], dtype=np.float64)
    got = quantise(data, np.ones(data.shape, dtype=bool), "float32", nodata).ravel()
    assert np.all(np.isfinite(got))
    assert np.all(got != np.float32(nodata))
    assert got[:2] == pytest.approx([nodata, nodata], rel=1e-4, abs=1e-30)
    assert got[2] == 5


def test_invalid_pixels_without_nodata() -> None:
    data, valid = np.array([[[3.0, np.nan]]]), np.array([[[True, False]]])
    assert quantise(data, valid, "uint16", None).ravel().tolist() == [3, 0]
    assert np.isnan(quantise(data, valid, "float32", None)[0, 0, 1])


def test_decision_is_told_as_json() -> None:
    told = json.loads(decide_radiometry("uint16", _sample(np.array([10, 20, 30]))).describe())
    assert (told["low"], told["high"]) == ([10.0], [30.0])
