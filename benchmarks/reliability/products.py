"""Small products of several files, for the scripts of this folder: Sentinel-2 and STAC."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

__all__ = ["BANDS", "IMAGE", "write_item", "write_safe", "zipped"]

BANDS = ("B02", "B03", "B04", "B08")
IMAGE = "GRANULE/L2A_T33TVN/IMG_DATA/R10m/T33TVN_20240501T100601_{}_10m"
"""Name of a band's image in the product, without the ending."""


def write_safe(root: Path, side: int = 24) -> Path:
    """A level 2A product of the four bands at 10 m, with its manifest."""
    rng = np.random.default_rng(0)
    streams = ""
    for band in BANDS:
        path = root / f"{IMAGE.format(band)}.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path, "w", driver="JP2OpenJPEG", width=side, height=side, count=1, dtype="uint16",
            crs="EPSG:32633", transform=Affine(10, 0, 399960, 0, -10, 4900020), QUALITY="100",
            REVERSIBLE="YES",
        ) as file:  # fmt: skip
            file.write(rng.integers(0, 5000, (1, side, side)).astype(np.uint16))
        content = path.read_bytes()
        streams += (
            f'<byteStream size="{len(content)}"><fileLocation href="./{IMAGE.format(band)}.jp2"/>'
            f'<checksum checksumName="MD5">{hashlib.md5(content).hexdigest()}</checksum></byteStream>'
        )
    (root / "manifest.safe").write_text(f"<a>{streams}</a>")
    images = "".join(f"<IMAGE_FILE>{IMAGE.format(band)}</IMAGE_FILE>" for band in BANDS)
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{i}">-1000</BOA_ADD_OFFSET>' for i in range(13))
    (root / "MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><a>'
        "<PRODUCT_START_TIME>2024-05-01T10:06:01Z</PRODUCT_START_TIME>"
        f"<PROCESSING_BASELINE>05.10</PROCESSING_BASELINE>{images}"
        f"<BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>{offsets}</a>"
    )
    return root


def zipped(root: Path, path: Path, top: str = "a.SAFE/", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A product in a zip, inside the folder ``top``."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.writestr(top + file.relative_to(root).as_posix(), file.read_bytes(), method)
    return path


def write_item(path: Path, *hrefs: str) -> Path:
    """A STAC item of assets of one band each."""
    assets = {
        f"a{i}": {
            "href": href, "type": "image/tiff", "roles": ["data"], "eo:bands": [{"name": f"B{i}"}],
            "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}],
        }
        for i, href in enumerate(hrefs)
    }  # fmt: skip
    properties = {"datetime": "2024-05-01T10:06:01Z"}
    item = {"type": "Feature", "id": "a", "properties": properties, "links": [], "assets": assets}
    path.write_text(json.dumps(item))
    return path
