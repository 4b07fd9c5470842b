"""What is known of a scene: its sensor by what says so, its pixels in metres, its noise."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine

from geomoe.noise import EvenBlocks, image_noise
from geomoe.raster import decide_radiometry, look, open_scene
from geomoe.raster.read.known import KnownScene as Known
from geomoe.raster.read.known import known_of
from geomoe.raster.read.sensor import sensor_of_file, sensor_of_tags
from tests.products import write_item, write_safe, zipped
from tests.scenes import UTM, pixels, write_scene


@pytest.mark.parametrize(
    ("name", "sensor"),
    [
        ("S2A_MSIL1C_20200101T101021_N0208_R022_T32TQM_20200101T121212.tif", "sentinel-2"),
        ("S2B_32TQM_20200101_0_L2A.tif", "sentinel-2"),
        ("T33TVN_20240501T100601_B04_10m.jp2", "sentinel-2"),
        ("T33TVN_20240501T100601_B04.jp2", "sentinel-2"),
        ("LC08_L1TP_044034_20160915_20170222_01_T1_B4.TIF", "landsat-8"),
        ("LE07_L2SP_044034_20160915_20170222_02_T1_SR_B4.TIF", "landsat-7"),
        ("LC80440342016259LGN00_B4.TIF", "landsat-8"),
        ("m_3008501_ne_16_060_20191115.tif", "naip"),
        ("20190321_174348_0f1a_3B_AnalyticMS_SR.tif", "planetscope"),
        ("sentinel2_l1c_10m.tif", "sentinel-2"),
        ("Landsat 9 of Berlin.tif", "landsat-9"),
        ("landsat.tif", None),
        ("landsat8_and_sentinel2.tif", None),
        ("scene.tif", None),
        ("naiplike.tif", None),
        ("LC08.tif", None),
    ],
)
def test_names_of_files_tell_the_sensor(name, sensor):
    assert sensor_of_file(name) == sensor


@pytest.mark.parametrize(
    ("tags", "domains", "sensor"),
    [
        ({"SOURCE": "Copernicus Sentinel-2 L1C, crop"}, {}, "sentinel-2"),
        ({"DATATAKE_1_SPACECRAFT_NAME": "Sentinel-2A"}, {}, "sentinel-2"),
        (
            {"PRODUCT_URI": "S2A_MSIL1C_20200101T101021_N0208_R022_T32TQM_20200101T121212.SAFE"},
            {},
            "sentinel-2",
        ),
        ({"SPACECRAFT_ID": "LANDSAT_8", "SENSOR_ID": "OLI_TIRS"}, {}, "landsat-8"),
        ({}, {"IMAGERY": {"SATELLITEID": "LANDSAT_9 OLI_TIRS"}}, "landsat-9"),
        ({}, {"IMAGERY": {"SATELLITEID": "GeoEye 1"}}, "geoeye-1"),
        ({}, {"IMAGERY": {"SATELLITEID": "\x1b[31m"}}, None),
        ({"COMMENT": "compared with Sentinel-2"}, {}, None),
        ({"SOURCE": "Sentinel-2 and Landsat 8"}, {}, None),
        ({"PLATFORM": "my drone"}, {}, None),
    ],
)
def test_tags_tell_the_sensor(tags, domains, sensor):
    assert sensor_of_tags(tags, domains) == sensor


def test_a_file_is_known_by_its_tags_before_its_name(tmp_path):
    path = write_scene(tmp_path / "naip.tif", pixels(3, 16, 16, "uint8"))
    with rasterio.open(path, "r+") as file:
        file.update_tags(SOURCE="Sentinel-2")
    with open_scene(path) as scene:
        assert known_of(scene) == Known("sentinel-2", 10.0, 0.2)


def test_products_are_known(tmp_path):
    root = write_safe(tmp_path / "anything")
    for source in (root, zipped(root, tmp_path / "x.zip")):
        with open_scene(source) as scene:
            assert known_of(scene) == Known("sentinel-2", 10.0, 0.2)
        with open_scene(source, "B09") as scene:
            assert known_of(scene) == Known("sentinel-2", 60.0, None), "of these bands no MTF is known"


@pytest.mark.parametrize(
    ("said", "collection", "sensor"),
    [
        ({"platform": "sentinel-2b", "constellation": "sentinel-2"}, None, "sentinel-2"),
        ({"platform": "landsat-8", "constellation": "landsat"}, None, "landsat-8"),
        ({"platform": "LANDSAT_9"}, None, "landsat-9"),
        ({}, "naip", "naip"),
        ({"platform": "SkySat-C1"}, None, "skysat-c1"),
        ({"platform": 3, "constellation": ["x"]}, 7, None),
        ({}, None, None),
    ],
)
def test_items_tell_the_sensor(tmp_path, said, collection, sensor):
    write_scene(tmp_path / "a.tif", pixels(1, 16, 16, "uint8"), names=["red"])
    path = write_item(tmp_path / "item.json", {"a": {"href": "a.tif"}}, **said)
    if collection is not None:
        import json

        path.write_text(json.dumps({**json.loads(path.read_text()), "collection": collection}))
    with open_scene(path) as scene:
        assert scene.sensor == sensor


@pytest.mark.parametrize(
    ("crs", "transform", "gsd"),
    [
        ("EPSG:32618", UTM, 10.0),
        ("EPSG:2263", Affine(10, 0, 980_000, 0, -10, 200_000), 3.048),  # feet
        ("EPSG:4326", Affine(1e-4, 0, 10.0, 0, -1e-4, 60.0008), 7.863),  # 11.12 m, times the root of cos(60)
        (None, UTM, None),
    ],
)
def test_pixels_are_told_in_metres(tmp_path, crs, transform, gsd):
    with open_scene(
        write_scene(tmp_path / "a.tif", pixels(1, 16, 16, "uint8"), crs=crs, transform=transform)
    ) as s:
        assert known_of(s).gsd == (None if gsd is None else pytest.approx(gsd, rel=1e-3))


def test_an_item_tells_pixels_where_the_grid_does_not(tmp_path):
    write_scene(tmp_path / "a.tif", pixels(1, 16, 16, "uint8"), crs=None, transform=None)
    write_scene(tmp_path / "b.tif", pixels(1, 16, 16, "uint8"))
    for name, gsd in (("a", 3.0), ("b", 10.0)):
        item = write_item(tmp_path / f"{name}.json", {"a": {"href": f"{name}.tif"}}, gsd=3)
        with open_scene(item) as scene:
            assert known_of(scene).gsd == gsd


def flat(sigma, side=256, dtype="float32", seed=0):
    """A ramp with an edge, and noise of ``sigma`` on it."""
    rng = np.random.default_rng(seed)
    plane = np.linspace(100, 140, side)[None] + np.linspace(0, 30, side)[:, None]
    plane = plane + 50 * (np.arange(side) > side // 3)
    image = plane + rng.normal(0, sigma, plane.shape)
    return (np.rint(image) if dtype.startswith("u") else image).astype(dtype)[None]


@pytest.mark.parametrize("sigma", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_noise_is_found_within_a_tenth(sigma, dtype):
    assert image_noise(flat(sigma, dtype=dtype).astype(np.float32)) == pytest.approx(sigma, rel=0.13)


def test_texture_beside_even_ground_is_no_noise():
    image = flat(1.0)
    image[:, :128] += 60 * np.random.default_rng(1).random((128, 256))
    assert image_noise(image) == pytest.approx(1.0, rel=0.1)


def test_nothing_tells_the_noise_of_what_is_clipped_or_tiny():
    assert image_noise(np.zeros((1, 64, 64), dtype=np.float32)) is None
    assert image_noise(np.random.default_rng(0).random((1, 31, 90)).astype(np.float32)) is None
    clipped = np.minimum(flat(5.0), 120)
    clipped[:, :, 100:] = 120
    blocks = EvenBlocks(1)
    blocks.add(clipped, np.ones(clipped.shape, dtype=bool))
    assert blocks.noise()[0] == pytest.approx(5.0, rel=0.25)


def test_a_scenes_noise_comes_with_its_sample(tmp_path):
    """By band, over its parts, without invalid pixels, in the range that the model sees."""
    data = np.concatenate([flat(40.0, 400, seed=1) * 10, flat(4.0, 400, seed=2)]).astype("uint16")
    data[:, :200, :200] = 0
    path = write_scene(tmp_path / "a.tif", data, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    with open_scene(path) as scene:
        scene, sample = look(scene, (1, 2))
        assert sample.noise == pytest.approx((400.0, 4.0), rel=0.1)
        radiometry = decide_radiometry(scene.dtype, sample)
        spans = np.subtract(radiometry.high, radiometry.low)
        noise = known_of(scene).with_noise(sample, radiometry).noise
        assert noise == pytest.approx(float(np.median(np.divide(sample.noise, spans))), rel=0.01)
        assert Known().with_noise(sample, radiometry).describe().startswith("noise about 0.0")


def test_no_pixel_is_read_for_the_noise_alone(tmp_path, monkeypatch):
    path = write_scene(tmp_path / "a.tif", pixels(2, 300, 300, "uint16"))
    with open_scene(path) as scene:
        windows, read = [], type(scene).read

        def reading(self, window, bands):
            windows.append(window)
            return read(self, window, bands)

        monkeypatch.setattr(type(scene), "read", reading)
        _, sample = look(scene, (1, 2))
    assert None not in sample.noise
    assert sum(window.width * window.height for window in windows) == 300 * 300
