"""Fill that a scene does not declare, and the nodata value that its user says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window

from geomoe.data.rasters import read_scaled
from geomoe.errors import GeomoeError
from geomoe.raster import decide_radiometry, look, open_scene
from tests.products import write_safe
from tests.scenes import pixels, write_scene

HIGH, WIDE = 60, 80
WHOLE = Window(0, 0, WIDE, HIGH)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scene.tif"


def collar(data: np.ndarray, value: float) -> np.ndarray:
    """A scene with the upper left triangle of one value in all bands; gives where."""
    where: np.ndarray = np.add.outer(np.arange(HIGH), np.arange(WIDE)) < 80
    data[:, where] = value
    return where


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint16", 0), ("uint8", 0), ("uint8", 255), ("uint16", 65535), ("int16", -32768), ("float32", -9999),
        ("float32", 0), ("float32", -3.4028234663852886e38), ("float64", 1e20), ("int32", 2**31 - 1),
        ("uint8", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bands", [1, 3])
def test_one_value_in_all_bands_at_the_border_is_fill(
    path: Path, dtype: str, value: float, bands: int
) -> None:
    data = pixels(bands, HIGH, WIDE, dtype)
    where = collar(data, value)
    data[0, -1, -1] = value  # in one band of several it is a measurement, and of one no other can tell
    scene, sample, valid = look_at(write_scene(path, data), read=True)
    assert (scene.nodata, scene.nodata_by, scene.validity) == (value, "area", "nodata")
    hidden = where if bands == 3 else (data[0] == value)
    assert np.array_equal(valid, np.broadcast_to(~hidden, data.shape))
    assert sample.valid_share == pytest.approx(1 - hidden.mean())
    assert len(scene.notes) == 1
    assert f"{hidden.mean():.1%} of pixels are {value:g} in all bands" in scene.notes[0]
    assert "--nodata none" in scene.notes[0]
    if dtype != "uint8":  # the stretch is that of the image, not of its collar
        kept = data[-1][~hidden].astype(np.float32)
        span = decide_radiometry(dtype, sample)
        assert (span.low[-1], span.high[-1]) == tuple(np.percentile(kept, (0.1, 99.9), method="nearest"))


def look_at(path: Path, read: bool = False, nodata: object = None, bands: object = None):  # type: ignore[no-untyped-def]
    with open_scene(path, None, nodata) as opened:  # type: ignore[arg-type]
        scene, sample = look(opened, bands or opened.data_bands)  # type: ignore[arg-type]
        if not read:
            return scene, sample
        return scene, sample, scene.read(WHOLE, scene.data_bands)[1]


@pytest.mark.parametrize("value", [30000, 5])
def test_one_band_of_integers_may_have_an_even_sea(path: Path, value: int) -> None:
    data = pixels(1, HIGH, WIDE, "uint16")
    data[0, 40:] = 6 + np.arange(WIDE)  # which others nearly reach
    collar(data, value)
    scene, _ = look_at(write_scene(path, data))
    assert (scene.nodata, scene.nodata_by) == (None, "scene")
    assert scene.notes[0].endswith(f"taken as measured: if they hold no data, give --nodata {value}")


@pytest.mark.parametrize("kind", ["inside", "small", "one band", "all", "none", "declared", "masked"])
def test_what_is_no_fill_is_left(path: Path, kind: str) -> None:
    data, options = pixels(3, HIGH, WIDE, "uint16"), {}
    if kind == "inside":
        data[:, 20:40, 20:50] = 0
    elif kind == "small":
        data[:, :6, :7] = 0
    elif kind == "one band":
        collar(data[:1], 0)
    elif kind == "all":
        data[:] = 0
    elif kind == "declared":
        collar(data, 0)
        options = {"nodata": 9}
    elif kind == "masked":
        options = {"mask": ~collar(data, 0)}
    scene, _ = look_at(write_scene(path, data, **options))
    assert scene.notes == ()
    assert scene.nodata_by == "scene"


def test_what_a_mask_leaves_of_an_area_is_told(path: Path) -> None:
    data = pixels(3, HIGH, WIDE, "uint8")
    collar(data, 0)
    opaque = np.full((1, HIGH, WIDE), 255, dtype=np.uint8)
    write_scene(path, np.concatenate([data, opaque]), photometric="RGB", alpha="YES")
    scene, _ = look_at(path)
    assert (scene.nodata, scene.validity) == (None, "alpha")
    assert scene.notes[0].endswith("taken as measured: if they hold no data, give --nodata 0")
    said, _, valid = look_at(path, read=True, nodata=0.0)
    assert said.nodata == 0
    assert np.array_equal(valid, data != 0)


def test_a_cloud_that_saturates_is_said_and_left(path: Path) -> None:
    """Its rim nearly does; a white collar ends where the image begins."""
    data = pixels(3, HIGH, WIDE, "uint8").astype(float)
    away = np.hypot(*np.mgrid[:HIGH, :WIDE])
    cloud = np.clip(255 + (30 - away) * 3, 0, 255)
    data = np.where(away < 50, cloud, data * 0.5)
    scene, _ = look_at(write_scene(path, np.rint(data).astype(np.uint8)))
    assert (scene.nodata, scene.validity) == (None, "all")
    assert "are 255 in all bands" in scene.notes[0]
    assert scene.notes[0].endswith("taken as measured: if they hold no data, give --nodata 255")


def test_large_scenes_are_looked_at_coarsely_and_alike(path: Path) -> None:
    data = pixels(1, 1500, 1400, "uint16").repeat(2, 0)
    data[1] += 1
    data[:, :300] = 0
    data[:, 700, 3] = 0
    with open_scene(write_scene(path, data, tiled=True)) as opened:
        (scene, sample), again = look(opened, (1, 2)), look(opened, (1, 2))[0]
        assert (scene.nodata, scene.notes) == (again.nodata, again.notes) == (0, again.notes)
        valid = scene.read(Window(0, 290, 20, 20), (1, 2))[1]
        assert np.array_equal(valid[0], np.arange(290, 310)[:, None].repeat(20, 1) >= 300)
        assert not scene.read(Window(3, 700, 1, 1), (1, 2))[1].any()
    assert min(values.min() for values in sample.values) > 0


def test_the_user_says_what_holds_no_data(path: Path, tmp_path: Path) -> None:
    data = pixels(3, HIGH, WIDE, "uint16")
    where = collar(data, 0)
    data[0, -1, -1] = 0
    write_scene(path, data)
    scene, _, valid = look_at(path, read=True, nodata=0.0)
    assert (scene.nodata, scene.nodata_by, scene.notes) == (0, "user", ())
    assert np.array_equal(valid, data != 0)  # band by band, as if it were declared
    scene, _, valid = look_at(path, read=True, nodata="none")
    assert (scene.nodata, scene.validity, scene.notes) == (None, "all", ())
    assert valid.all()
    write_scene(path, data, nodata=7)
    assert look_at(path, read=True, nodata="none")[2].all()
    assert np.array_equal(look_at(path, read=True, nodata=0.0)[2], data != 0)
    write_scene(path, data, nodata=7, mask=~where)
    assert np.array_equal(look_at(path, read=True, nodata=0.0)[2], ~where & (data != 0))
    for wrong in (-1.0, 0.5, float("nan"), 1e9):
        with pytest.raises(GeomoeError, match=r"scene\.tif is uint16, whose pixels are never .*--nodata"):
            look_at(path, nodata=wrong)
    safe = write_safe(tmp_path / "S2.SAFE", "L1C")
    with open_scene(safe) as opened, open_scene(safe, None, "none") as other:
        window = Window(0, 0, 4, 4)
        assert not opened.read(window, (1,))[1].all()
        assert other.read(window, (1,))[1].all()
        assert opened.digest() == other.digest()  # of what is read, whatever is said of it


def test_training_does_not_learn_from_fill(path: Path) -> None:
    data = pixels(3, HIGH, WIDE, "uint16")
    where = collar(data, 0)
    image, valid, *_ = read_scaled(write_scene(path, data), 3)
    assert image.min() > -0.1
    assert np.array_equal(valid, ~where)
