"""Networks that make images larger, one file for each published system."""

from geomoe.models.super_resolution import (  # noqa: F401  (they register themselves)
    edsr,
    hat,
    haunet,
    mfg_hmoe,
    rcan,
    rrdbnet,
    spt,
    swin2_mose,
    swinir,
    ttst,
)
