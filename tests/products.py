"""Small Sentinel-2 products and STAC items on disk."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.scenes import pixels

SIDE = 24
"""Pixels of the 10 m grid, each way; a multiple of six."""
OFFSETS = dict.fromkeys(range(13), -1000)
L1C = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20,
    "B09": 60, "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip
L2A = {10: ("B02", "B03", "B04", "B08"), 20: ("B02", "B03", "B04", "B05", "B8A", "B11"), 60: ("B02", "B09")}


def write_jp2(path: Path, data: NDArray[Any], pixel: float) -> Path:
    """A lossless JPEG 2000 of one band ``[h, w]`` of the tile's grid of that pixel size."""
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", width=data.shape[1], height=data.shape[0], count=1, dtype=data.dtype,
        crs="EPSG:32633", transform=Affine(pixel, 0, 399960, 0, -pixel, 4900020), QUALITY="100",
        REVERSIBLE="YES",
    ) as file:  # fmt: skip
        file.write(data, 1)
    path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
    return path


def band_pixels(band: str, pixel: int) -> NDArray[np.uint16]:
    """What a product of `write_safe` has for a band: some pixels are 0, without data."""
    data = (
        pixels(1, SIDE * 10 // pixel, SIDE * 10 // pixel, "uint16", seed=sum(band.encode()) + pixel)[0] // 8
    )
    data[:2, :2] = 0
    return data


def images(level: str) -> dict[str, tuple[str, int]]:
    """Files of bands of reflectance by their names in a product (without the ending): band and pixel size."""
    folder = f"GRANULE/{level}_T33TVN_A000001_20240501T100601/IMG_DATA"
    if level == "L1C":
        return {f"{folder}/T33TVN_20240501T100601_{b}": (b, pixel) for b, pixel in L1C.items()}
    return {
        f"{folder}/R{pixel}m/T33TVN_20240501T100601_{b}_{pixel}m": (b, pixel)
        for pixel, bands in L2A.items()
        for b in bands
    }


def metadata(
    level: str,
    files: Iterable[str],
    *,
    baseline: str = "05.10",
    offsets: Mapping[int, object] = OFFSETS,
    quantity: object = 10000,
) -> str:
    """What MTD_MSI*.xml of a product says."""
    quantification, offset = (
        ("QUANTIFICATION_VALUE", "RADIO_ADD_OFFSET") if level == "L1C"
        else ("BOA_QUANTIFICATION_VALUE", "BOA_ADD_OFFSET")
    )  # fmt: skip
    listed = "".join(f"<IMAGE_FILE>{file}</IMAGE_FILE>" for file in files)
    added = "".join(f'<{offset} band_id="{band}">{value}</{offset}>' for band, value in offsets.items())
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level[1:]}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2024-05-01T10:06:01.024Z</PRODUCT_START_TIME>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><Product_Organisation><Granule_List><Granule>{listed}
</Granule></Granule_List></Product_Organisation></Product_Info><Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
</Special_Values><{quantification} unit="none">{quantity}</{quantification}>{added}
</Product_Image_Characteristics></n1:General_Info></n1:Level-{level[1:]}_User_Product>"""


def write_safe(
    root: Path,
    level: str = "L2A",
    *,
    bands: Sequence[str] | None = None,
    algorithm: str = "MD5",
    **said: Any,
) -> Path:
    """An unpacked product with its manifest; ``bands`` limits it to some, ``said`` goes to `metadata`."""
    files = {name: at for name, at in images(level).items() if bands is None or at[0] in bands}
    streams = []
    for name, (band, pixel) in files.items():
        path = root / f"{name}.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = write_jp2(path, band_pixels(band, pixel), pixel).read_bytes()
        checksum = hashlib.new(algorithm.lower().replace("-", "_"), content).hexdigest()
        streams.append(
            f'<dataObject><byteStream mimeType="application/octet-stream" size="{len(content)}">'
            f'<fileLocation locatorType="URL" href="./{name}.jp2"/>'
            f'<checksum checksumName="{algorithm}">{checksum.upper()}</checksum></byteStream></dataObject>'
        )
    others = [name.replace(files[name][0], "TCI") for name in list(files)[:1]]  # listed, and not to be read
    (root / f"MTD_MSI{level}.xml").write_text(metadata(level, [*files, *others], **said))
    (root / "manifest.safe").write_text(
        '<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1"><dataObjectSection>'
        f"{''.join(streams)}</dataObjectSection></xfdu:XFDU>"
    )
    return root


def zipped(root: Path, path: Path) -> Path:
    """A product as it is downloaded: its folder in a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, f"{root.name}/{file.relative_to(root).as_posix()}")
    return path


def write_item(path: Path, assets: Mapping[str, Mapping[str, object]], **properties: object) -> Path:
    """A STAC item."""
    path.write_text(json.dumps({
        "type": "Feature", "stac_version": "1.0.0", "id": path.stem, "geometry": None, "links": [],
        "properties": {"datetime": "2024-05-01T10:06:01Z", **properties}, "assets": assets,
    }))  # fmt: skip
    return path
