"""Where the pixels of an upscaled scene lie on the ground."""

from __future__ import annotations

from collections.abc import Sequence

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

__all__ = ["upscaled", "upscaled_gcps", "upscaled_rpcs"]


def upscaled(transform: Affine, scale: int) -> Affine:
    """The transform of the grid whose pixels are ``scale`` times smaller, with the same corner.

    Exact for rotated, sheared, south-up and non-square grids: only the pixel side changes.

    Args:
        transform: pixel corner (column, row) to ground, of the source.
        scale: output pixels along one input pixel.
    """
    return transform * Affine.scale(1 / scale)


def upscaled_gcps(gcps: Sequence[GroundControlPoint], scale: int) -> list[GroundControlPoint]:
    """Ground control points on the finer grid; GDAL counts their rows and columns from the corner."""
    return [
        GroundControlPoint(row=p.row * scale, col=p.col * scale, x=p.x, y=p.y, z=p.z, id=p.id, info=p.info)
        for p in gcps
    ]


def upscaled_rpcs(rpcs: RPC, scale: int) -> RPC:
    """Rational polynomials on the finer grid.

    Their line and sample offsets count from the centre of the first pixel, which moves
    by half a pixel less than half a fine pixel: ``new = (old + 0.5) * scale - 0.5``.
    """
    fields = rpcs.to_dict()
    for name in ("line_off", "samp_off"):
        fields[name] = (fields[name] + 0.5) * scale - 0.5
    for name in ("line_scale", "samp_scale"):
        fields[name] = fields[name] * scale
    return RPC(**fields)
