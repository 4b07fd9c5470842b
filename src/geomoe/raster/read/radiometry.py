"""From a scene's units to the range a model was trained on, and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomoe.raster.read.rounding import round_keeping_means
from geomoe.raster.read.sample import SceneSample

__all__ = ["AS_THEY_ARE", "Radiometry", "as_they_are", "decide_radiometry", "limits", "quantise"]

_LOW, _HIGH = 0.1, 99.9  # percent
AS_THEY_ARE = "values as they are"
"""The rule of :func:`as_they_are`."""
_LARGEST = float(np.finfo(np.float32).max)
# GDAL takes a float within a few ulp of nodata for nodata.
_NODATA_ULP = 32


@dataclass(frozen=True)
class Radiometry:
    """An affine map for each band: ``low`` goes to 0 and ``high`` to 1. Nothing is clipped on the way.

    Attributes:
        low, high: in source units, for each band; ``high > low``.
        rule: how they were found, in words.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    rule: str

    @property
    def plain(self) -> bool:
        """Whether values stay what they are."""
        return self.rule == AS_THEY_ARE

    def to_model(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[C, H, W]`` float32 in source units to the model's range, 0 to 1 for nearly all pixels."""
        low, gain = self._columns()
        with np.errstate(over="ignore", invalid="ignore"):  # invalid pixels may hold anything
            return ((data - low) / gain).astype(np.float32)

    def to_source(self, data: NDArray[np.float32]) -> NDArray[np.float64]:
        """``[C, H, W]`` in the model's range back to source units, in float64 so that nothing is lost."""
        low, gain = self._columns()
        return data * gain + low

    def describe(self) -> str:
        """One JSON object, for the output's tags."""
        return json.dumps({"rule": self.rule, "low": self.low, "high": self.high}, sort_keys=True)

    def _columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low = np.asarray(self.low, dtype=np.float64)[:, None, None]  # [C, 1, 1]
        high = np.asarray(self.high, dtype=np.float64)[:, None, None]
        return low, high - low


def decide_radiometry(dtype: str, sample: SceneSample) -> Radiometry:
    """The map for a scene: divide by 255 for uint8, else stretch each band between robust percentiles.

    Physical scale and offset play no part: they are carried to the output, whose numbers stay the source's.

    Args:
        dtype: of the scene.
        sample: valid pixels of the bands in question. A band without any is given the span of the first one
            that has some: it holds nothing, but what it is filled with must be of the model's range.
    """
    if dtype == "uint8":
        bands = len(sample.values)
        return Radiometry((0.0,) * bands, (255.0,) * bands, "uint8: divided by 255")
    filled = next(values for values in sample.values if values.size)
    spans = [_span(values if values.size else filled, dtype) for values in sample.values]
    rule = f"{dtype}: each band from its {_LOW} to its {_HIGH} percentile of sampled valid pixels"
    return Radiometry(tuple(low for low, _ in spans), tuple(high for _, high in spans), rule)


def as_they_are(bands: int) -> Radiometry:
    """For models that have mean and deviation of their bands in the units of the source."""
    return Radiometry((0.0,) * bands, (1.0,) * bands, AS_THEY_ARE)


def _span(values: NDArray[np.float32], dtype: str) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(values, (_LOW, _HIGH), method="nearest"))
    if high <= low:  # nearly constant: the few pixels that differ must not be blown up
        low, high = float(values.min()), float(values.max())
    # Below this a step of the data type, or of float32, would be stretched over the whole range.
    least = max(abs(low), abs(high)) * 1e-5 or 1.0 if np.issubdtype(dtype, np.floating) else 1.0
    return (low, high) if high - low >= least else (low, low + least)


def limits(dtype: str, nodata: float | None) -> tuple[float, float]:
    """Least and largest value that a valid pixel of a type may have."""
    if np.issubdtype(dtype, np.floating):
        # Of float64, too: the scene had no larger value, and whoever narrows the output would meet infinity.
        return -_LARGEST, _LARGEST
    info = np.iinfo(dtype)
    return info.min + (nodata == info.min), info.max - (nodata == info.max)


def quantise(
    data: NDArray[np.float64],
    valid: NDArray[np.bool_],
    dtype: str,
    nodata: float | None,
    means: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.generic]:
    """Source units to the source's type, so that valid pixels stay valid and invalid ones invalid.

    Integers are rounded half to even and clipped to their range. A valid pixel that lands on ``nodata`` moves
    by one step. Invalid pixels become ``nodata``, else NaN in a float scene, else 0 (their mask tells).

    Args:
        data: ``[C, H, W]`` float64, finite where valid.
        valid: ``[C, H, W]`` bool.
        dtype: one of the supported types.
        nodata: of the output.
        means: ``[C, H / s, W / s]``, where the mean over each square of ``data`` is known and is to be that
            of the result, too: exactly, where the type is of integers; see `round_keeping_means`. ``data`` is
            within `limits` then.

    Returns:
        ``[C, H, W]`` of ``dtype``.
    """
    floats = np.issubdtype(dtype, np.floating)
    blank = nodata if nodata is not None else (math.nan if floats else 0)
    kept = np.where(valid, data, 0.0)
    if floats:
        result: NDArray[np.generic] = _floats(kept, np.dtype(dtype), nodata)
    else:
        info = np.iinfo(np.dtype(dtype))
        if means is None:
            whole = np.rint(kept)
        else:
            whole = kept  # band by band in place, as memory is promised
            for band, mean in zip(
                whole, np.clip(means.astype(np.float64), *limits(dtype, nodata)), strict=True
            ):
                band[:] = round_keeping_means(band, mean, nodata)
        whole = np.clip(whole, info.min, info.max)
        if nodata is not None:
            whole[whole == nodata] += 1 if nodata < info.max else -1
        result = whole.astype(dtype)
    result[~valid] = np.dtype(dtype).type(blank)
    return result


def _floats(data: NDArray[np.float64], dtype: np.dtype[Any], nodata: float | None) -> NDArray[Any]:
    result = np.clip(data, *limits(dtype.name, nodata)).astype(dtype)
    if nodata is not None and math.isfinite(nodata):
        of_type = np.finfo(dtype)
        near = _NODATA_ULP * max(abs(nodata) * float(of_type.eps), float(of_type.smallest_subnormal))
        # Towards zero, where there is always room; from zero itself, upwards.
        aside = nodata - math.copysign(near, nodata) if nodata else near
        result[np.abs(result.astype(np.float64) - nodata) <= near / 2] = aside
    return result
