"""A tiny network whose results are near those of interpolation, as a trained one's are."""

from tests.models.sizes import tiny


def upscaler(**options):
    """Of a mixture at scale 2, with random weights that are the same each time."""
    return tiny("mfg_hmoe", base="bicubic", **options)
