"""A job gives the same bytes whatever the environment says to GDAL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window

from geomoe.raster.formats.open import open_scene
from geomoe.raster.read.env import gdal_env
from geomoe.raster.stac.item import sha256
from geomoe.raster.write.cog import write_cog
from geomoe.raster.write.metadata import carried_over
from geomoe.raster.write.scratch import Scratch
from tests.scenes import pixels, write_scene

SCENES = ("nodata", "mask", "point")


def _made(folder: Path, src: Path) -> str:
    """SHA-256 of a COG with overviews, made of a scene."""
    with open_scene(src) as scene:
        meta = carried_over(scene, range(1, scene.count + 1), 1, {})
        window = Window(0, 0, scene.width, scene.height)
        data, valid = scene.read(window, range(1, scene.count + 1))
    scratch = Scratch(folder, meta)
    with gdal_env():
        scratch.create()
        with scratch:
            sums = scratch.write(window, data.astype(meta.dtype), valid.all(axis=0))
    write_cog(scratch, folder / "part.tif", [(window, sums)], meta.nodata, "part.tif")
    return sha256(folder / "part.tif")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    folder = tmp_path_factory.mktemp("scenes")
    made = {}
    for name in SCENES:
        data = pixels(3, 560, 520, "float32" if name == "mask" else "uint16")
        data[:, :40] = 0
        path = folder / f"{name}.tif"
        if name == "mask":
            write_scene(path, data, mask=np.where(data[0] > 0, 255, 0).astype(np.uint8))
        else:
            write_scene(path, data, nodata=0, tags={"AREA_OR_POINT": "Point" if name == "point" else "Area"})
        (folder / name).mkdir()
        made[path] = _made(folder / name, path)
    return made


SETTINGS = [
        "GDAL_TIFF_OVR_BLOCKSIZE=128", "ZLEVEL_OVERVIEW=1", "COMPRESS_OVERVIEW=LZW", "COMPRESS_OVERVIEW=NONE",
        "PREDICTOR_OVERVIEW=1", "INTERLEAVE_OVERVIEW=BAND", "PHOTOMETRIC_OVERVIEW=RGB",
        "GDAL_TIFF_DEFLATE_SUBCODEC=ZLIB", "GDAL_GEOREF_SOURCES=NONE", "GDAL_GEOREF_SOURCES=WORLDFILE",
        "GDAL_TIFF_ENDIANNESS=BIG", "GDAL_TIFF_ENDIANNESS=INVERTED", "CPL_TMPDIR=/nonexistent",
        "GDAL_OVR_PROPAGATE_NODATA=YES", "GTIFF_DONT_WRITE_BLOCKS=YES", "GTIFF_POINT_GEO_IGNORE=YES",
        "GDAL_DEFAULT_CREATE_COPY=YES", "GDAL_TIFF_INTERNAL_MASK=NO", "GDAL_TIFF_INTERNAL_MASK_TO_8BIT=NO",
        "TIFF_READ_STREAMING=YES", "GTIFF_IMPORT_FROM_EPSG=NO", "GTIFF_ESRI_CITATION=NO", "OSR_WKT_FORMAT=NO",
        "OSR_DEFAULT_AXIS_MAPPING_STRATEGY=NO", "GDAL_NUM_THREADS=ALL_CPUS", "GDAL_PAM_ENABLED=YES",
]  # fmt: skip


@pytest.mark.parametrize("some", [SETTINGS[i::6] for i in range(6)], ids=lambda some: some[0])
def test_the_environment_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes: dict[Path, str], some: list[str]
) -> None:
    """Several settings at a time, none of them twice; where one shows, it is among those."""
    for setting in some:
        monkeypatch.setenv(*setting.split("="))
    for path, wanted in scenes.items():
        (tmp_path / path.stem).mkdir()
        assert _made(tmp_path / path.stem, path) == wanted, path.stem


def test_neither_does_a_file_of_settings(tmp_path: Path, scenes: dict[Path, str]) -> None:
    (tmp_path / "gdalrc").write_text(
        "[configoptions]\nGDAL_TIFF_OVR_BLOCKSIZE=128\nZLEVEL_OVERVIEW=1\nGTIFF_POINT_GEO_IGNORE=YES\n"
        "GDAL_TIFF_DEFLATE_SUBCODEC=ZLIB\nGDAL_GEOREF_SOURCES=NONE\n"
    )
    ask = "import sys; from pathlib import Path; from tests.raster.test_env import _made; "
    ask += "print(_made(Path(sys.argv[1]), Path(sys.argv[2])))"
    path = next(path for path in scenes if path.stem == "point")
    said = subprocess.run(
        [sys.executable, "-c", ask, str(tmp_path), str(path)],
        env={**os.environ, "GDAL_CONFIG_FILE": str(tmp_path / "gdalrc")},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.strip() == scenes[path]
