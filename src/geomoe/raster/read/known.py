"""What is known of a scene beside its pixels: of the sensor, the size of a pixel, and the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from geomoe.raster.read.radiometry import Radiometry
from geomoe.raster.read.sample import SceneSample
from geomoe.raster.read.scene import Scene
from geomoe.raster.read.sensor import sensor_mtf

__all__ = ["KnownScene", "known_of", "pixel_metres"]

_EARTH = 6_371_008.8
"""Mean radius, metres."""


@dataclass(frozen=True)
class KnownScene:
    """What is known of a scene; ``None`` is what nothing tells.

    Attributes:
        sensor: as the field calls it: ``sentinel-2``, ``landsat-8``, ``naip``.
        gsd: ground sampling distance in metres: the side of a pixel.
        mtf: of the sensor at its Nyquist frequency, 0 to 1.
        noise: standard deviation in units of the model's range, which is 0 to 1: the median of the bands'.
    """

    sensor: str | None = None
    gsd: float | None = None
    mtf: float | None = None
    noise: float | None = None

    def describe(self) -> str:
        """In words, without what is not known; empty where nothing is."""
        told = [
            self.sensor,
            None if self.gsd is None else f"{self.gsd:.4g} m a pixel",
            None if self.mtf is None else f"MTF about {self.mtf:g} at Nyquist",
            None if self.noise is None else f"noise about {self.noise:.2g} of the range that the model sees",
        ]
        return ", ".join(filter(None, told))

    def with_noise(self, sample: SceneSample, radiometry: Radiometry) -> KnownScene:
        """The same with the noise of a sample, in the range that a radiometry makes of its values, if any."""
        if radiometry.plain:
            return self
        spans = (high - low for low, high in zip(radiometry.low, radiometry.high, strict=True))
        found = [noise / span for noise, span in zip(sample.noise, spans, strict=True) if noise is not None]
        # Few digits: what an item says must not depend on how a machine rounds.
        return replace(self, noise=float(f"{np.median(found):.3g}") if found else None)


def known_of(scene: Scene) -> KnownScene:
    """What a scene's header tells. Its noise is found with the sample of its pixels, and added then."""
    gsd = _pixel(scene)
    return KnownScene(scene.sensor, gsd, sensor_mtf(scene.sensor, gsd))


def pixel_metres(transform: Affine | None, crs: CRS | None) -> float | None:
    """The side of a pixel in metres, the mean one where sides differ; ``None`` on a grid of other units."""
    if transform is None or crs is None or not crs.is_projected:
        return None
    metres = float(crs.linear_units_factor[1])
    # Nine digits: a side of 10 is not to become 10.000000000000002 by its root.
    side = float(f"{math.sqrt(abs(transform.determinant)) * metres:.9g}")
    return side if side and math.isfinite(side) else None


def _pixel(scene: Scene) -> float | None:
    """The side of a pixel in metres: by the grid, of degrees at the middle; else as its item says."""
    side = pixel_metres(scene.transform, scene.crs)
    if side is not None or scene.transform is None or scene.crs is None or not scene.crs.is_geographic:
        return side or scene.said_gsd
    _, latitude = scene.transform * (scene.width / 2, scene.height / 2)
    radians = float(scene.crs.units_factor[1])
    area = abs(scene.transform.determinant) * radians**2 * math.cos(latitude * radians)
    return float(f"{_EARTH * math.sqrt(area):.4g}") if area > 0 else scene.said_gsd
