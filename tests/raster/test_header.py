"""What a header may not ask of GDAL: memory and time without bound, and other files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geomoe.errors import GeomoeError
from geomoe.raster import open_scene, sample_scene
from geomoe.raster.stac.footprint import footprint
from geomoe.raster.write.metadata import carried_over
from tests.scenes import pixels, write_scene
from tests.tiffs import METADATA, Value, geo_tags, image_tags, tiff_bytes, write_tiff

_UTM = (
    'PROJCS["x",GEOGCS["g",DATUM["d",SPHEROID["Bessel 1841",6377397.155,299.1528128]DATUM],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1]END]'
)
_PLAIN = _UTM.replace("DATUM]", "]").replace("END]", "]")
_GRIDS = _UTM.replace("DATUM]", ',EXTENSION["PROJ4_GRIDS","GRID"]]').replace("END]", "]")
_G = (
    'GEOGCRS["g",DATUM["d",ELLIPSOID["e",6377397.155,299.15]],CS[ellipsoidal,2],AXIS["lat",north],'
    'AXIS["lon",east],ANGLEUNIT["degree",0.0174532925199433]]'
)
_NAMING = {
    "grids of a datum": _GRIDS,
    "in small letters": _GRIDS.replace("EXTENSION", "extension"),
    "behind a bar in a name": _GRIDS.replace('"x"', '"x|y"'),
    "behind a quote in a name": _GRIDS.replace('"x"', '"x"" | y"'),
    "without an end": _GRIDS.replace('"GRID"]', '"GRID'),
    "PROJ's language": _PLAIN[:-1] + ',EXTENSION["PROJ4","+proj=utm +zone=33 +nadgrids=GRID +units=m"]]',
    "an optional one": _PLAIN[:-1] + ',EXTENSION["PROJ4","+proj=utm +zone=33 +nadgrids=@GRID,null"]]',
    "a list of codes": _PLAIN[:-1] + ',EXTENSION["PROJ4","+init=GRID:1"]]',
    "geoid": _PLAIN[:-1] + ',EXTENSION["PROJ4","+proj=utm +zone=33 +geoidgrids=grid.gtx"]]',
    "a method": _PLAIN.replace("Transverse_Mercator", "PROJ hgridshift grids=GRID"),
    "a bound CRS": f'BOUNDCRS[SOURCECRS[{_G}],TARGETCRS[{_G}],ABRIDGEDTRANSFORMATION["t",METHOD["NTv2"],'
    'PARAMETERFILE["f","GRID"]]]',
    "a model of the geoid": f'COMPOUNDCRS["c",{_G},VERTCRS["h",VDATUM["v"],CS[vertical,1],AXIS["up",up],'
    'LENGTHUNIT["metre",1],GEOIDMODEL["PROJ GRID"]]]',
}  # fmt: skip
_PREFIX = "ESRI PE String = "


def _refusal(path: Path) -> str:
    with pytest.raises(GeomoeError) as raised, open_scene(path):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


def _jp2(path: Path, box: bytes) -> Path:
    """A JPEG 2000 with one more box before its code stream."""
    with rasterio.open(path, "w", driver="JP2OpenJPEG", width=64, height=64, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 64, 64), np.uint8))
    content = path.read_bytes()
    place = content.index(b"jp2c") - 4
    path.write_bytes(content[:place] + struct.pack(">I", len(box) + 4) + box + content[place:])
    return path


@pytest.mark.parametrize("naming", _NAMING)
def test_a_crs_that_names_files_is_refused_before_gdal_opens_them(tmp_path: Path, naming: str) -> None:
    grid = tmp_path / "grid"
    os.mkfifo(grid)  # nobody writes to it: who opens it waits for ever
    text = _NAMING[naming].replace("GRID", str(grid))
    path = write_tiff(tmp_path / "a.tif", image_tags() | geo_tags(_PREFIX + text))
    assert "names grid files" in _refusal(path)
    box = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03") + path.read_bytes()
    assert "names grid files" in _refusal(_jp2(tmp_path / "a.jp2", b"uuid" + box))


@pytest.mark.parametrize(
    "text",
    [
        _PLAIN,
        f"{_PLAIN}|GCS Name = g|Ellipsoid = Bessel",
        _PLAIN[:-1] + ',EXTENSION["PROJ4","+proj=tmerc +lon_0=15 +k=0.9996 +x_0=5e5 +ellps=bessel '
        '+nadgrids=@null +wktext"]]',
    ],
)
def test_a_crs_that_names_no_file_stays(tmp_path: Path, text: str) -> None:
    path = write_tiff(tmp_path / "a.tif", image_tags() | geo_tags(_PREFIX + text))
    with open_scene(path) as scene:
        assert scene.crs is not None
        place = footprint(carried_over(scene, [1], 1, {}))
    assert place is not None
    assert place.bbox == pytest.approx([13.7277, 45.1452, 13.7360, 45.1510], abs=1e-4)


_FOREIGN = """
import sys
from pathlib import Path
from geomoe.raster import open_scene
from geomoe.raster.stac.footprint import footprint
from geomoe.raster.write.metadata import carried_over
with open_scene(sys.argv[1]) as scene:
    print(footprint(carried_over(scene, [1], 1, {})).bbox)
"""


def test_where_a_scene_lies_does_not_depend_on_the_environment(tmp_path: Path) -> None:
    """OSGB36, whose best transformation takes a grid: here an empty one, which PROJ would complain of."""
    path = write_scene(
        tmp_path / "a.tif",
        pixels(1, 8, 8, "uint8"),
        crs="EPSG:27700",
        transform=Affine(1, 0, 4e5, 0, -1, 4e5),
    )
    home = Path(rasterio.__file__).parent / "proj_data"
    (tmp_path / "data").mkdir()
    for name in ("proj.db", "uk_os_OSTN15_NTv2_OSGBtoETRS.tif"):
        (tmp_path / "data" / name).symlink_to(home / name if name == "proj.db" else "/dev/null")
    said = set()
    for changed in (
        {},
        {"PROJ_DATA": str(tmp_path / "data"), "PROJ_NETWORK": "ON"},
        {"PROJ_LIB": "/nonexistent", "GDAL_DATA": "/nonexistent"},
        {"PROJ_DATA": "/nonexistent", "PROJ_AUX_DB": "/dev/null", "OSR_DEFAULT_AXIS_MAPPING_STRATEGY": "x"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", _FOREIGN, str(path)],
            env=os.environ | changed, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.add(done.stdout + done.stderr)
    assert len(said) == 1


def test_no_network_whatever_the_environment_says() -> None:
    code = "import geomoe.raster, os; print(os.environ['PROJ_NETWORK'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PROJ_NETWORK": "ON"}, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"OFF"


@pytest.mark.parametrize(
    "tags",
    [
        {"t254": 4, "t322": 92672, "t323": 92672},  # a mask
        {"t254": 1, "t322": 92672, "t323": 92672},  # an overview
        {"t254": 4, "t258": 1, "t256": 92672, "t257": 92672, "t278": 92672, "t259": 8},  # bits become bytes
        {
            "t254": 4,
            "t256": 92672,
            "t257": 92672,
            "t278": 92672,
            "t279": 0,
            "t258": 1,
        },  # a strip that was never written
    ],
)
def test_a_block_that_a_mask_or_overview_claims_is_refused(tmp_path: Path, tags: dict[str, int]) -> None:
    path = write_tiff(tmp_path / "a.tif", image_tags(), image_tags(**tags))
    assert "blocks of 92672 x 92672 pixels" in _refusal(path)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_blocks_are_counted_with_all_bands(tmp_path: Path, interleave: str) -> None:
    """Eight bands in a strip each: 162 MB of one band, 1.3 GB of them together, in a file of a kilobyte."""
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=9000, height=9000, count=8, dtype="uint16",
        compress="deflate", blockysize=9000, interleave=interleave, sparse_ok=True,
    ):  # fmt: skip
        pass
    assert "1236 MiB of its bands" in _refusal(tmp_path / "a.tif")


def test_a_strip_of_bytes_is_read_row_by_row(tmp_path: Path) -> None:
    """As GDAL does it, so that it takes no memory; ten times as much as may be kept, were it a block."""
    path = write_tiff(tmp_path / "a.tif", image_tags(t256=80_000, t257=70_000, t278=70_000, t259=8))
    with open_scene(path) as scene:
        assert scene.block == (1, 80_000)
        assert scene.cache_bytes == 2**25 + 2 * 80_000


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_large_blocks_count_in_the_memory_that_a_job_takes(tmp_path: Path, interleave: str) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=5000, height=5000, count=3, dtype="uint16",
        compress="deflate", blockysize=5000, interleave=interleave, sparse_ok=True,
    ):  # fmt: skip
        pass
    with open_scene(tmp_path / "a.tif") as scene:
        assert scene.cache_bytes == 2**25 + 2 * 3 * 5000 * 5000 * 2
        sample = sample_scene(scene, [1, 2, 3])
        assert sum(values.size for values in sample.values) <= 3_000_000


def test_a_small_block_of_many_bands_is_read_band_by_band(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=512, height=512, count=1200, dtype="uint16",
        tiled=True, blockxsize=512, blockysize=512, interleave="band", sparse_ok=True,
    ):  # fmt: skip
        pass
    with open_scene(tmp_path / "a.tif") as scene:
        assert scene.cache_bytes == 2**25 + 2 * 512 * 512 * 2


def test_more_metadata_than_gdal_reads_in_a_second_is_refused(tmp_path: Path) -> None:
    def written(items: int) -> bytes:
        text = "".join(f'<Item name="n{i}">v</Item>' for i in range(items))
        return f"<GDALMetadata>{text}</GDALMetadata>".encode()

    few = write_tiff(tmp_path / "few.tif", image_tags() | {METADATA: written(100)})
    with open_scene(few) as scene:
        assert len(scene.tags) >= 100
    many = write_tiff(tmp_path / "many.tif", image_tags() | {METADATA: written(40_000)})
    assert "10000 items" in _refusal(many)
    assert "10000 items" in _refusal(_jp2(tmp_path / "a.jp2", b"xml " + written(40_000)))


@pytest.mark.parametrize(
    "tags",
    [
        {METADATA: b"<GDALMetadata><It\xffm></It\xfem></GDALMetadata>"},
        {METADATA: b'<GDALMetadata><Item name="a">\xe9</Item></GDALMetadata>'},
        geo_tags("UTM") | {34737: b"a\xe9b|"},
    ],
)
def test_text_that_is_none_is_one_error_of_ours(
    tmp_path: Path, tags: dict[int, Value], capfd: pytest.CaptureFixture[str]
) -> None:
    """rasterio says "Exception ignored in" past every handler of errors."""
    assert "not text in UTF-8" in _refusal(write_tiff(tmp_path / "a.tif", image_tags() | tags))
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("scale", "said"),
    [((np.inf, 10, 0), "not finite"), ((10, np.nan, 0), "not finite"), ((1e308, 10, 0), "not finite")],
)
def test_a_grid_of_numbers_that_place_nothing_is_refused_at_once(
    tmp_path: Path, scale: tuple[float, ...], said: str
) -> None:
    tags = image_tags() | geo_tags("UTM") | {33550: struct.pack("<3d", *scale)}
    assert said in _refusal(write_tiff(tmp_path / "a.tif", tags))


def test_pixels_without_an_area_are_refused(tmp_path: Path) -> None:
    turned = struct.pack("<16d", 10, 20, 0, 4e5, 10, 20, 0, 5e6, *(0.0,) * 7, 1)
    tags = {k: v for k, v in geo_tags("UTM").items() if k not in (33550, 33922)} | {34264: turned}
    path = write_tiff(tmp_path / "a.tif", image_tags() | tags)
    assert "without an area" in _refusal(path)


def test_a_big_endian_bigtiff_is_looked_at_too(tmp_path: Path) -> None:
    entries = [(256, 4096), (257, 4096), (258, 8), (277, 1), (322, 92672), (323, 92672)]
    packed = b"".join(struct.pack(">HHQI4x", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack(">2sHHHQ", b"MM", 43, 8, 0, 16)
    (tmp_path / "a.tif").write_bytes(head + struct.pack(">Q", len(entries)) + packed + bytes(8))
    assert "blocks of 92672 x 92672 pixels" in _refusal(tmp_path / "a.tif")


def test_a_directory_that_leads_round_in_a_circle_ends(tmp_path: Path) -> None:
    content = bytearray(tiff_bytes(image_tags()))
    content[-4:] = content[4:8]
    (tmp_path / "a.tif").write_bytes(content)
    with open_scene(tmp_path / "a.tif") as scene:
        assert (scene.width, scene.height) == (64, 64)
