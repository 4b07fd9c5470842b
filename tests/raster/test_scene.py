"""What is understood of a scene, and what is refused."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster import band_order, decide_radiometry, open_scene, sample_scene, select_bands
from geomoe.raster.read.env import BLOCK_CACHE_BYTES, JPEG2000_CACHE_BYTES
from geomoe.raster.read.scene import DTYPES
from tests.scenes import UTM, pixels, write_scene

WHOLE = Window(0, 0, 20, 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scene.tif"


def _refusal(path: Path | str) -> str:
    with pytest.raises(GeomoeError) as caught, open_scene(path):
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_source_units(path: Path, dtype: str) -> None:
    data = pixels(2, 16, 20, dtype)
    with open_scene(write_scene(path, data)) as scene:
        got, valid = scene.read(Window(3, 2, 9, 7), [2, 1])
    assert np.array_equal(got, data[[1, 0], 2:9, 3:12].astype(np.float32))
    assert valid.all()


def test_nodata_is_judged_band_by_band(path: Path) -> None:
    data = pixels(2, 16, 20, "uint16")
    data[0, :4] = 0
    data[:, 5] = 0
    with open_scene(write_scene(path, data, nodata=0)) as scene:
        _, valid = scene.read(WHOLE, [1, 2])
        assert (scene.validity, scene.nodata) == ("nodata", 0)
    assert np.array_equal(valid, data != 0)


def test_internal_mask_and_alpha_and_nan(path: Path) -> None:
    keep = np.ones((16, 20), dtype=bool)
    keep[3:8, 4:9] = False
    with open_scene(write_scene(path, pixels(1, 16, 20, "uint8"), mask=keep)) as scene:
        assert scene.validity == "mask"
        assert np.array_equal(scene.read(WHOLE, [1])[1][0], keep)
    data = np.concatenate([pixels(3, 16, 20, "uint8"), keep[None].astype(np.uint8) * 200])
    with open_scene(write_scene(path, data, photometric="RGB", alpha="YES")) as scene:
        assert (scene.validity, scene.data_bands) == ("alpha", (1, 2, 3))
        assert np.array_equal(scene.read(WHOLE, [2])[1][0], keep)
    five = np.concatenate([data, data[:1]])  # GDAL sees no mask here
    with open_scene(write_scene(path, five, photometric="RGB", alpha="YES")) as scene:
        assert (scene.validity, scene.data_bands) == ("alpha", (1, 2, 3, 5))
        assert np.array_equal(scene.read(WHOLE, [5])[1][0], keep)
    floats = np.where(keep, pixels(1, 16, 20, "float32"), np.nan).astype(np.float32)
    floats[0, 0, 0] = np.inf
    with open_scene(write_scene(path, floats)) as scene:
        assert scene.validity == "nan"
        assert np.array_equal(scene.read(WHOLE, [1])[1], np.isfinite(floats))


def test_bands_by_name_and_number(path: Path) -> None:
    names = ["B04", "B03", "B02", "4"]
    with open_scene(write_scene(path, pixels(4, 4, 4, "uint16"), names=names)) as scene:
        assert select_bands(scene, None, 3) == (1, 2, 3, 4)
        assert select_bands(scene, "b02, B04", 3) == (3, 1)
        assert select_bands(scene, [2, "1"], 3) == (2, 1)
        assert select_bands(scene, "4", 3) == (4,)
        assert band_order(scene, (1, 2)) is None
        for bad in ("B8", "0", "5", [-1], "B04,1", ""):
            with pytest.raises(GeomoeError, match="band"):
                select_bands(scene, bad, 3)


def test_nameless_bands_are_assumed_red_green_blue_nir(path: Path) -> None:
    with open_scene(write_scene(path, pixels(4, 4, 4, "uint16"))) as scene:
        assert "red, green, blue, nir" in str(band_order(scene, (1, 2)))


def test_colours_that_a_file_says_are_names(path: Path) -> None:
    with open_scene(write_scene(path, pixels(4, 4, 4, "uint8"), photometric="RGB", alpha="YES")) as scene:
        assert select_bands(scene, "Blue,green,red", 3) == (3, 2, 1)
        assert band_order(scene, (1, 2, 3)) is None
        with pytest.raises(GeomoeError, match=r"no band 'nir'; it has 1 \(red\), 2 \(green\), 3 \(blue\)"):
            select_bands(scene, "nir", 3)


def test_another_order_of_colours_is_told(path: Path) -> None:
    names = ["Blue", "Green", "Red", "NIR"]
    with open_scene(write_scene(path, pixels(4, 4, 4, "uint16"), names=names)) as scene:
        assert "--bands Red,Green,Blue,NIR" in str(band_order(scene, (1, 2, 3, 4)))
        assert band_order(scene, (3, 2, 1, 4)) is None
        assert band_order(scene, (1, 2)) is None
        assert band_order(scene, (4,)) is None
    write_scene(path, pixels(4, 4, 4, "uint16"))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.nir, ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    with open_scene(path) as scene:
        assert select_bands(scene, "nir,red", 3) == (1, 2)
        assert "--bands red,green,blue,nir" in str(band_order(scene, (1, 2, 3, 4)))
        assert band_order(scene, (1,)) is None


def test_a_description_counts_for_more_than_a_colour(path: Path) -> None:
    """Three bytes a pixel are red, green, blue to most writers, whatever they are."""
    data = pixels(3, 4, 4, "uint8")
    with open_scene(write_scene(path, data, names=["blue", "green", "red"], photometric="RGB")) as scene:
        assert select_bands(scene, "red", 3) == (3,)
        assert "--bands red,green,blue" in str(band_order(scene, (1, 2, 3)))
    with open_scene(write_scene(path, data, names=["B02", "B03", "B04"], photometric="RGB")) as scene:
        assert select_bands(scene, "red", 3) == (3,)
    with (
        open_scene(write_scene(path, data, names=["VV", "VH", "angle"], photometric="RGB")) as scene,
        pytest.raises(GeomoeError, match="no band 'red'"),
    ):
        select_bands(scene, "red", 3)


def test_alpha_cannot_be_selected(path: Path) -> None:
    with (
        open_scene(write_scene(path, pixels(2, 4, 4, "uint8"), alpha="YES")) as scene,
        pytest.raises(GeomoeError, match="mask and not data"),
    ):
        select_bands(scene, [2], 3)


def test_sample_is_bounded_valid_and_the_same_each_time(path: Path) -> None:
    data = pixels(1, 1500, 1400, "uint16")
    data[:, :300] = 0
    write_scene(path, data, nodata=0, tiled=True)
    with open_scene(path) as scene:
        first, second = sample_scene(scene, (1,)), sample_scene(scene, (1,))
    assert first.values[0].size <= 1_000_000
    assert np.array_equal(first.values[0], second.values[0])
    assert first.values[0].min() > 0
    assert first.valid_share == pytest.approx(0.8, abs=0.01)
    assert np.isin(first.values[0], data).all()


def test_sample_finds_one_valid_pixel_off_its_grid(path: Path) -> None:
    data = np.zeros((1, 2100, 2100), dtype=np.uint8)
    data[0, 2098, 2099] = 7
    with open_scene(write_scene(path, data, nodata=0, compress="deflate")) as scene:
        assert sample_scene(scene, (1,)).values[0].tolist() == [7]


def test_sample_completes_bands_that_the_grid_missed(path: Path) -> None:
    data = np.zeros((3, 2100, 2100), dtype=np.uint16)
    data[0] = 500
    data[1, 2098, 2099] = 3000
    with open_scene(write_scene(path, data, nodata=0, compress="deflate")) as scene:
        sample = sample_scene(scene, (1, 2, 3))
    assert sample.values[1].tolist() == [3000]
    assert sample.values[2].size == 0
    assert sample.valid_share == 1
    radiometry = decide_radiometry("uint16", sample)
    # A span of 0 to 1 would show thousands to a model that is made for 0 to 1.
    assert (radiometry.low[1], radiometry.low[2]) == (3000, 500)


def test_refuses_what_is_no_local_geotiff(tmp_path: Path, path: Path) -> None:
    assert "does not exist" in _refusal(path)
    assert "folder" in _refusal(tmp_path)
    assert "not a local file" in _refusal("https://example.com/a.tif")
    assert "not a local file" in _refusal("/vsicurl/http://example.com/a.tif")
    path.write_text("no picture")
    assert "cannot be opened as a GeoTIFF" in _refusal(path)
    path.write_bytes(b"")
    assert "cannot be opened as a GeoTIFF" in _refusal(path)
    other = tmp_path / "scene.jp2"
    other.write_bytes(b"x")
    assert ".jp2" in _refusal(other)
    fifo = tmp_path / "pipe.tif"
    os.mkfifo(fifo)
    assert "not a regular file" in _refusal(fifo)


def test_a_vrt_in_disguise_reads_no_other_file(path: Path, tmp_path: Path) -> None:
    secret = write_scene(tmp_path / "secret.tif", pixels(1, 4, 4, "uint8"))
    path.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with rasterio.open(path) as vrt:  # the danger is real
        assert vrt.driver == "VRT"
    assert "cannot be opened as a GeoTIFF" in _refusal(path)


@pytest.mark.parametrize("options", [{}, {"tiled": True, "compress": "deflate"}, {"interleave": "band"}])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_truncated_file_is_refused_at_once(path: Path, options: dict[str, object], share: float) -> None:
    write_scene(path, pixels(3, 300, 300, "uint16"), **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert path.name in _refusal(path)


def test_damaged_block_is_our_error(path: Path) -> None:
    write_scene(path, pixels(1, 300, 300, "uint16"), tiled=True, compress="deflate")
    raw = bytearray(path.read_bytes())
    raw[-5000:-1000] = bytes(4000)
    path.write_bytes(raw)
    with pytest.raises(GeomoeError, match="damaged"), open_scene(path) as scene:
        sample_scene(scene, (1,))


@pytest.mark.parametrize("dtype", ["int64", "complex64"])
def test_other_types_are_refused_with_a_reason(path: Path, dtype: str) -> None:
    message = _refusal(write_scene(path, np.ones((1, 4, 4), dtype=dtype)))
    assert dtype in message
    assert "uint16" in message


def test_paletted_and_bilevel_scenes_are_refused(path: Path) -> None:
    write_scene(path, np.ones((1, 4, 4), dtype=np.uint8), photometric="PALETTE")
    with rasterio.open(path, "r+") as scene:
        scene.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
        scene.colorinterp = [ColorInterp.palette]
    with open_scene(path) as scene, pytest.raises(GeomoeError, match="paletted"):
        select_bands(scene, None, 3)
    assert "bits" in _refusal(write_scene(path, np.ones((1, 4, 4), dtype=np.uint8), nbits=4))
    one = _refusal(write_scene(path, np.ones((1, 4, 4), dtype=np.uint8), nbits=1))
    assert "has 1 bit a pixel: a mask or classes" in one
    assert "palette" not in one
    assert "white" in _refusal(
        write_scene(path, np.ones((1, 4, 4), dtype=np.uint8), photometric="MINISWHITE")
    )


def test_external_mask_is_refused_and_other_neighbours_are_told(path: Path) -> None:
    write_scene(path, pixels(1, 4, 4, "uint8"))
    path.with_name("scene.tif.aux.xml").write_text("<PAMDataset/>")
    with open_scene(path) as scene:
        assert scene.neighbours == ("scene.tif.aux.xml",)
    path.with_name("scene.tif.msk").write_text("anything")
    assert "mask" in _refusal(path)


@pytest.mark.parametrize(
    ("element", "held"),
    [
        ("<PAMRasterBand><NoDataValue>7</NoDataValue>", "nodata value"),
        ("<GeoTransform>", "transform"),
        ("<SRS ", "CRS"),
    ],
)
def test_what_a_neighbour_alone_says_of_a_scene_is_not_lost(path: Path, element: str, held: str) -> None:
    write_scene(path, pixels(1, 4, 4, "uint8"))
    path.with_name("scene.tif.aux.xml").write_text(f"<PAMDataset>{element}")
    refusal = _refusal(path)
    assert held in refusal
    assert "gdal_translate" in refusal


@pytest.mark.parametrize("ending", [".tfw", ".TFW", "_RPC.TXT"])
def test_a_world_file_is_refused_where_it_alone_places_the_scene(path: Path, ending: str) -> None:
    world = path.with_name("scene" + ending)
    write_scene(path, pixels(1, 4, 4, "uint8"))
    world.write_text("10\n0\n0\n-10\n5\n5\n")
    with open_scene(path) as scene:
        assert scene.neighbours == (world.name,)
    write_scene(path, pixels(1, 4, 4, "uint8"), transform=None, crs=None)
    world.touch()  # GDAL removes some of them when it writes a scene
    assert f"{world.name} says where scene.tif lies" in _refusal(path)


def test_mutated_headers_end_in_our_error_or_a_scene(path: Path) -> None:
    write_scene(path, pixels(2, 8, 8, "uint16"), names=["a", "b"], nodata=0)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        raw = bytearray(whole)
        for place in rng.integers(0, min(len(raw), 700), 4):
            raw[place] = rng.integers(256)
        path.write_bytes(raw)
        with suppress(GeomoeError), open_scene(path) as scene:  # any other error fails the test
            assert scene.width > 0


def test_jpeg_2000_is_read_like_a_geotiff(tmp_path: Path) -> None:
    data = pixels(3, 40, 50, "uint16")
    path = tmp_path / "scene.jp2"
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", width=50, height=40, count=3, dtype="uint16", crs="EPSG:32618",
        transform=UTM, QUALITY="100", REVERSIBLE="YES",
    ) as file:  # fmt: skip
        file.write(data)
    with open_scene(path) as scene:
        assert (scene.width, scene.height, scene.dtype, scene.transform) == (50, 40, "uint16", UTM)
        assert BLOCK_CACHE_BYTES < scene.cache_bytes <= JPEG2000_CACHE_BYTES
        read, valid = scene.read(Window(0, 0, 50, 40), (1, 2, 3))
    assert np.array_equal(read, data)
    assert valid.all()


def test_a_jpeg_2000_cut_short_is_one_error(tmp_path: Path) -> None:
    data = pixels(3, 64, 64, "uint16")
    path = tmp_path / "scene.jp2"
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", width=64, height=64, count=3, dtype="uint16", QUALITY="100"
    ) as file:
        file.write(data)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(GeomoeError, match=r"scene\.jp2"), open_scene(path) as scene:
        scene.read(Window(0, 0, 64, 64), (1, 2, 3))


def _jp2(path: Path) -> bytes:
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", width=40, height=33, count=3, dtype="uint8", QUALITY=100
    ) as file:
        file.write(pixels(3, 33, 40, "uint8"))
    return path.read_bytes()


@pytest.mark.parametrize("length", [0, 1, 7, 400, 2**32 - 1])
def test_damaged_boxes_of_a_jpeg_2000_are_not_given_to_gdal(tmp_path: Path, length: int) -> None:
    """With a length of 0 inside another box, GDAL 3.10 goes round for ever."""
    data = bytearray(_jp2(tmp_path / "a.jp2"))
    with open_scene(tmp_path / "a.jp2") as scene:
        assert (scene.width, scene.height, scene.count) == (40, 33, 3)
    colours = data.index(b"colr") - 4
    data[colours : colours + 4] = length.to_bytes(4, "big")
    (tmp_path / "a.jp2").write_bytes(data)
    with (
        pytest.raises(GeomoeError, match="not a JPEG 2000 whose parts are in order"),
        open_scene(tmp_path / "a.jp2"),
    ):
        pass


def test_a_bare_code_stream_is_a_jpeg_2000(tmp_path: Path) -> None:
    data = _jp2(tmp_path / "a.jp2")
    (tmp_path / "b.jp2").write_bytes(data[data.index(b"\xff\x4f\xff\x51") :])
    with open_scene(tmp_path / "b.jp2") as scene:
        assert (scene.width, scene.count) == (40, 3)
