"""Sentinel-2 products: which bands are read, how their values become reflectance."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.pipeline import describe_scene, plan_scene, upscale
from geomoe.pipeline.job import is_made
from geomoe.pipeline.request import Request
from geomoe.raster import band_order, open_scene, select_bands
from geomoe.raster.formats.sentinel2 import read_product
from tests.pipeline.fakes import nearest
from tests.products import L1C, SIDE, band_pixels, images, metadata, write_safe, zipped

RGBN = ("B04", "B03", "B02", "B08")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_safe(tmp_path_factory.mktemp("made") / "S2A_MSIL2A_20240501.SAFE")


@pytest.fixture
def product(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


def _refusal(path: Path, bands: str | None = None) -> str:
    with pytest.raises(GeomoeError) as caught, open_scene(path, bands) as scene:
        scene.digest()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _file(product: Path, band: str, pixel: int) -> Path:
    return next(product / f"{name}.jp2" for name, at in images("L2A").items() if at == (band, pixel))


def test_the_finest_grid_is_the_scene_red_first(made: Path) -> None:
    with open_scene(made) as scene:
        assert scene.descriptions == RGBN
        assert (scene.width, scene.height, scene.dtype) == (SIDE, SIDE, "uint16")
        assert scene.transform == Affine(10, 0, 399960, 0, -10, 4900020)
        assert (scene.validity, scene.nodata) == ("nodata", 0)
        assert scene.scales == (1e-4,) * 4
        assert scene.offsets == (-0.1,) * 4
        assert scene.acquired == "2024-05-01T10:06:01.024000Z"
        assert scene.notes[0] == "reflectance is (DN - 1000) / 10000, by processing baseline 05.10"
        data, valid = scene.read(Window(1, 0, 9, 7), (2, 4))
    expected = np.stack([band_pixels("B03", 10), band_pixels("B08", 10)])[:, :7, 1:10]
    assert np.array_equal(data, expected)
    assert np.array_equal(valid, expected != 0)
    assert not valid.all()


@pytest.mark.parametrize(
    ("bands", "pixel", "names"),
    [
        ("B02", 10, ["B02"]),
        ("b08,B4", 10, ["B08", "B04"]),
        ("nir,red,green", 10, ["B08", "B04", "B03"]),
        ("B02,B11", 20, ["B02", "B11"]),
        ("swir16, nir08", 20, ["B11", "B8A"]),
        ("blue,B9", 60, ["B02", "B09"]),
        (["B04", 1], 10, ["B04", "B04"]),
        ("3,1", 10, ["B02", "B04"]),
    ],
)
def test_names_choose_the_finest_grid_that_has_them(
    made: Path, bands: str | list[str | int], pixel: int, names: list[str]
) -> None:
    with open_scene(made, bands) as scene:
        assert scene.transform is not None
        assert scene.transform.a == pixel
        if len(set(names)) == len(names):
            assert [scene.descriptions[b - 1] for b in select_bands(scene, bands, 3)] == names
        else:
            with pytest.raises(GeomoeError, match="twice"):
                select_bands(scene, bands, 3)


@pytest.mark.parametrize("bands", ["blue,green,red", "B02,B03,B04,B05"])
def test_the_advice_about_an_order_can_be_followed(made: Path, bands: str) -> None:
    """Also of bands chosen by name, whose numbers are not those of the whole product."""
    with open_scene(made, bands) as scene:
        grid, told = scene.transform, str(band_order(scene, select_bands(scene, bands, 3)))
    better = told.split("--bands ")[1].split()[0]
    with open_scene(made, better) as scene:
        assert band_order(scene, select_bands(scene, better, 3)) is None
        assert scene.transform == grid


def test_names_that_share_no_grid_are_told_what_each_has(made: Path) -> None:
    assert "10, " not in (message := _refusal(made, "B08,B11"))
    assert "of 10: B04, B03, B02, B08; of 20: B04, B03, B02, B05, B8A, B11; of 60: B02, B09" in message
    assert "B13" in _refusal(made, "B13")


def test_a_product_comes_through_a_model_with_its_names_and_reflectance(made: Path, tmp_path: Path) -> None:
    upscale(made, tmp_path / "folder.tif", model=nearest(), scale=2, bands="B8A,B11")
    upscale(zipped(made, tmp_path / "p.zip"), tmp_path / "zip.tif", model=nearest(), scale=2, bands="B8A,B11")
    with rasterio.open(tmp_path / "zip.tif") as out, rasterio.open(tmp_path / "folder.tif") as other:
        assert np.array_equal(out.read(), other.read())
        theirs, mine = other.tags(), out.tags()
        assert theirs.pop("GEOMOE_ITEM") != mine.pop("GEOMOE_ITEM")  # each names its source
        assert theirs == mine
        assert other.profile == out.profile
        assert out.transform == Affine(10, 0, 399960, 0, -10, 4900020)
        assert (out.crs.to_epsg(), out.dtypes, out.nodata) == (32633, ("uint16",) * 2, 0)
        assert (out.descriptions, out.scales, out.offsets) == (("B8A", "B11"), (1e-4,) * 2, (-0.1,) * 2)
        expected = np.stack([band_pixels("B8A", 20), band_pixels("B11", 20)])
        assert np.array_equal(out.read(), expected.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("level", ["L2A", "L1C"])
def test_a_band_without_its_product_is_told_where_that_is(tmp_path: Path, level: str) -> None:
    folder = (
        write_safe(tmp_path / "A.SAFE", level=level) if level == "L1C" else write_safe(tmp_path / "A.SAFE")
    )
    file = folder / f"{next(name for name, at in images(level).items() if at[0] == 'B04')}.jp2"
    with open_scene(file) as scene:
        (note,) = scene.notes
    assert f"give {folder}, " in note
    colours = file.with_name(file.name.replace("B04", "TCI"))
    for other in (tmp_path / file.name, colours):
        with open_scene(Path(shutil.copy(file, other))) as scene:
            assert scene.notes == ()


def test_what_was_made_of_a_product_is_known_again(made: Path, tmp_path: Path) -> None:
    model, out = nearest(), tmp_path / "out.tif"
    upscale(made, out, model=model, scale=2, bands="red,B11")
    packed = zipped(made, tmp_path / "p.zip")
    assert is_made(Request(packed, out, model, 2, bands="B04,swir16"))  # the same bands of the same files
    assert not is_made(Request(packed, out, model, 2, bands="B11,B04"))
    assert not is_made(Request(packed, out, model, 2, bands="B04,B03"))


def test_info_and_the_plan_say_what_was_decided(made: Path, tmp_path: Path) -> None:
    facts = describe_scene(made / "MTD_MSIL2A.xml", bands="B11")
    assert facts["decided"] == "reflectance is (DN - 1000) / 10000, by processing baseline 05.10"
    assert facts["acquired"].startswith("2024-05-01")
    plan = plan_scene(made, tmp_path / "o.tif", model=nearest(), scale=2)
    assert facts["decided"] in plan.notes


def test_a_zip_leaves_nothing_behind(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    packed = zipped(made, tmp_path / "p.zip")
    with open_scene(packed, "B11") as scene:
        assert scene.files == (packed,)
        assert len(list((tmp_path / "temporary").rglob("*.jp2"))) == 1  # what is wanted, no more
    assert not list((tmp_path / "temporary").iterdir())


def test_level_1c_has_every_band_on_its_own_grid(tmp_path: Path) -> None:
    root = write_safe(tmp_path / "any name", "L1C", bands=["B01", "B02", "B05", "B8A", "B10"])
    for band, pixel in {"B02": 10, "B8A": 20, "cirrus": 60, "B1": 60}.items():
        with open_scene(root, band) as scene:
            assert scene.transform is not None
            assert scene.transform.a == pixel
    assert set(L1C.values()) == {10, 20, 60}


@pytest.mark.parametrize(
    ("level", "said", "offsets", "note"),
    [
        ("L2A", {}, {"B02": -0.1, "B12": -0.1}, "reflectance is (DN - 1000) / 10000, by"),
        ("L1C", {"baseline": "04.00"}, {"B8A": -0.1}, "(DN - 1000) / 10000, by processing baseline 04.00"),
        (
            "L1C",
            {"baseline": "03.01", "offsets": {}},
            {"B02": 0},
            "is DN / 10000, by processing baseline 03.01",
        ),
        ("L2A", {"baseline": "05.11", "offsets": {}}, {"B02": 0}, "were applied before"),
        ("L1C", {"offsets": {1: -900, 8: 5}}, {"B02": -0.09, "B8A": 0.0005, "B09": 0}, "B02 -900"),
        ("L1C", {"quantity": 1000}, {"B02": -1}, "(DN - 1000) / 1000, by"),
    ],
)
def test_offsets_are_by_baseline_and_band_id(
    level: str, said: dict[str, object], offsets: dict[str, float], note: str
) -> None:
    files = [f"IMG_DATA/T_{b}{'' if level == 'L1C' else '_60m'}" for b in L1C]
    found = read_product("p", f"MTD_MSI{level}.xml", metadata(level, files, **said).encode())  # type: ignore[arg-type]
    have = {part.name: part.offset for part in found.parts}
    assert {name: have[name] for name in offsets} == pytest.approx(offsets)
    assert note in found.notes[0]


@pytest.mark.parametrize("algorithm", ["MD5", "SHA3-256"])
def test_a_damaged_download_is_refused_by_the_manifest(tmp_path: Path, algorithm: str) -> None:
    product = write_safe(tmp_path / "p", bands=["B08", "B09"], algorithm=algorithm)
    file = _file(product, "B08", 10)
    with open_scene(product) as scene:
        scene.digest()
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert "checksum" in _refusal(product)
    with pytest.raises(GeomoeError, match="checksum"):
        upscale(product, tmp_path / "o.tif", model=nearest(), scale=2)
    assert not (tmp_path / "o.tif").exists()
    file.write_bytes(content[:-5])
    assert "its manifest says" in _refusal(product)
    with open_scene(product, "B09") as scene:
        scene.digest()


def test_the_digest_tells_what_is_read_and_how(made: Path, product: Path) -> None:
    def digest(bands: str) -> str:
        with open_scene(product, bands) as scene:
            return scene.digest()

    first = digest("B04,B03")
    assert first != digest("B03,B04")
    assert digest("B04,B03") == first
    path = product / "MTD_MSIL2A.xml"
    path.write_text(path.read_text().replace(">-1000<", ">-900<"))
    assert digest("B04,B03") != first
