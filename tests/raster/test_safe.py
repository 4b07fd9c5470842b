"""Sentinel-2 products: which bands are read, how their values become reflectance, and what is refused."""

from __future__ import annotations

import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.pipeline import describe_scene, plan_upscale, upscale
from geomoe.pipeline.job import is_made
from geomoe.pipeline.request import Request
from geomoe.raster import band_order, open_scene, select_bands
from geomoe.raster.formats import product_files
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
    plan = plan_upscale(made, tmp_path / "o.tif", model=nearest(), scale=2)
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


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("05.10", "new"), "processing baseline"),
        ((">10000<", ">0<"), "QUANTIFICATION"),
        ((">10000<", ">ten<"), "expected a number"),
        ((">10000<", ">1e-300<"), "QUANTIFICATION"),
        ((">-1000<", ">nan<"), "expected a number"),
        (('band_id="3"', 'band_id="13"'), "band_id"),
        (('band_id="3"', 'band_id="0000001"'), "band_id"),
        (("IMAGE_FILE", "IMAGE_FILE_2A"), "no image"),
        (("PROCESSING_BASELINE", "X"), "no PROCESSING_BASELINE"),
        (("<IMAGE_FILE>GRANULE", "<IMAGE_FILE>/GRANULE"), "not inside"),
        (("<IMAGE_FILE>GRANULE", "<IMAGE_FILE>../GRANULE"), "not inside"),
        (("<IMAGE_FILE>GRANULE", "<IMAGE_FILE>a/../../GRANULE"), "not inside"),
        (("<IMAGE_FILE>GRANULE", "<IMAGE_FILE>..\\GRANULE"), "not inside"),
        (("_B08_10m<", "_B04_10m<"), "several images"),
        (("R10m/", "R11m/"), "download the whole product"),
        (("<n1:General_Info>", "<!DOCTYPE a><n1:General_Info>"), "document type"),
        (("</n1:General_Info>", ""), "not XML"),
    ],
)
def test_metadata_that_cannot_be_used(product: Path, change: tuple[str, str], why: str) -> None:
    path = product / "MTD_MSIL2A.xml"
    path.write_text(path.read_text().replace(*change))
    assert why in _refusal(product)


def test_no_entity_is_ever_expanded(product: Path) -> None:
    path = product / "MTD_MSIL2A.xml"
    text = path.read_text().replace("05.10", "&a;")
    entity = f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{product}/manifest.safe">]>'
    path.write_text(text.replace("<n1:", entity + "<n1:", 1))
    assert "document type" in _refusal(product)
    path.write_bytes(path.read_text().replace("UTF-8", "UTF-16").encode("utf-16"))  # hidden by its encoding
    assert "not XML in UTF-8" in _refusal(product)


def test_links_do_not_lead_out_of_a_product(product: Path, tmp_path: Path) -> None:
    file = _file(product, "B08", 10)
    shutil.move(file, tmp_path / "other.jp2")
    file.symlink_to(tmp_path / "other.jp2")
    assert "link to elsewhere" in _refusal(product)
    shutil.move(tmp_path / "other.jp2", product / "other.jp2")
    file.unlink()
    file.symlink_to(product / "other.jp2")  # inside, it may be
    with open_scene(product) as scene:
        assert scene.descriptions == RGBN


def test_folders_that_are_no_product(product: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "without MTD_MSIL1C.xml or MTD_MSIL2A.xml" in _refusal(tmp_path / "empty")
    (tmp_path / "empty" / "S2A_OPER_MTD_SAFL1C_PDMC_2016.xml").touch()
    assert "before December 2016" in _refusal(tmp_path / "empty")
    shutil.copy(product / "MTD_MSIL2A.xml", product / "MTD_MSIL1C.xml")
    assert "expected one of them" in _refusal(product)


def _rewritten(source: Path, target: Path, change: object) -> Path:
    """The zip with each of its members given to ``change``, which may return None to leave it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            for name, data in change(info, content):  # type: ignore[operator]
                new.writestr(name, data)
    return target


def test_zips_that_are_no_product(made: Path, tmp_path: Path) -> None:
    packed = zipped(made, tmp_path / "p.zip")
    whole = packed.read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in _refusal(tmp_path / "cut.zip")
    (tmp_path / "none.zip").write_bytes(b"")
    assert "not a zip" in _refusal(tmp_path / "none.zip")
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.write(packed, "p.zip")
    assert "no product" in _refusal(tmp_path / "nested.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for top in "ab":
            archive.write(made / "MTD_MSIL2A.xml", f"{top}/MTD_MSIL2A.xml")
    assert "2 products" in _refusal(tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        archive.write(made / "MTD_MSIL2A.xml", "../MTD_MSIL2A.xml")
    assert "not inside" in _refusal(tmp_path / "up.zip")
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{made.name}/MTD_MSIL2A.xml", "<a/>")
    assert "two files of one name" in _refusal(packed)


def test_members_that_are_not_unpacked(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (product / "manifest.safe").unlink()  # which would be the first to tell
    packed = zipped(product, tmp_path / "p.zip")

    def link(info: zipfile.ZipInfo, content: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
        if info.filename.endswith("_B08_10m.jp2"):
            info.external_attr = 0o120777 << 16
            content = b"/etc/hostname"
        return [(info, content)]

    assert "link" in _refusal(_rewritten(packed, tmp_path / "link.zip", link))
    raw = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("_B08_10m.jp2"))
    raw[info.header_offset + 6] |= 1
    entry = raw.index(b"PK\x01\x02", raw.rindex(info.filename.encode()) - 46)
    raw[entry + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(raw)
    assert "encrypted" in _refusal(tmp_path / "locked.zip")
    raw = bytearray(packed.read_bytes())
    raw[entry + 24 : entry + 28] = (2**31 + 1).to_bytes(4, "little")  # says that it has more than it has
    (tmp_path / "large.zip").write_bytes(raw)
    assert "more than a band" in _refusal(tmp_path / "large.zip")
    raw[entry + 24 : entry + 28] = (100).to_bytes(4, "little")  # or less
    (tmp_path / "small.zip").write_bytes(raw)
    assert "download it again" in _refusal(tmp_path / "small.zip")
    monkeypatch.setattr(product_files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    assert "TMPDIR" in _refusal(packed)
    monkeypatch.undo()
    monkeypatch.setattr(product_files, "MAX_TOTAL_BYTES", 500)
    assert "more than a band" in _refusal(packed)
    monkeypatch.setattr(product_files, "_MAX_DIRECTORY_BYTES", 500)
    assert "too long" in _refusal(packed)


@pytest.mark.parametrize("comment", [b"", b"c" * (2**16 - 1)])
@pytest.mark.parametrize("plain", [0, 50, 2**32 - 1])
def test_a_long_list_of_members_is_refused_before_it_is_read(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: int, comment: bytes
) -> None:
    packed = zipped(made, tmp_path / "p.zip").read_bytes()
    end = packed.rindex(b"PK\x05\x06")
    *_, count, length, offset, _ = struct.unpack("<4s4H2LH", packed[end:])
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, plain, offset, len(comment))
    path = tmp_path / "64.zip"
    path.write_bytes(packed[:end] + record + locator + last + comment)
    with open_scene(path) as scene:  # as Python reads it
        assert scene.count == 4
    monkeypatch.setattr(product_files, "_MAX_DIRECTORY_BYTES", length - 1)
    monkeypatch.setattr(product_files.zipfile, "ZipFile", None)
    assert "too long" in _refusal(path)


_XML = metadata("L2A", images("L2A"))
_PIECES = st.sampled_from(
    ["<", ">", "&a;", "\0", "-", "1e999", "..", "/", "<a>", "\\", "é", "</", "  ", '"', "nan"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(_XML)), st.integers(0, 30), _PIECES), max_size=4))
def test_any_metadata_are_a_product_or_our_error(changes: list[tuple[int, int, str]]) -> None:
    text = _XML
    for place, cut, piece in changes:
        text = text[:place] + piece + text[place + cut :]
    try:
        found = read_product("p", "MTD_MSIL2A.xml", text.encode())
    except GeomoeError:
        return
    assert all(np.isfinite([part.scale, part.offset]).all() for part in found.parts)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_our_error(content: bytes) -> None:
    with pytest.raises(GeomoeError):
        read_product("p", "MTD_MSIL1C.xml", content)


def test_deep_and_wide_metadata_are_read_in_no_time() -> None:
    for text in ("<a>" * 200_000, "<a>" + "<IMAGE_FILE>A_B02_10m</IMAGE_FILE>" * 20_000 + "</a>",
                 "<a>" * 100_000 + "</a>" * 100_000):  # fmt: skip
        with pytest.raises(GeomoeError):
            read_product("p", "MTD_MSIL2A.xml", text.encode())


def test_streams_inside_streams_take_no_time_by_their_square(product: Path) -> None:
    """Of each, what lies right below counts: thirty thousand, one in another, took half an hour."""
    manifest = product / "manifest.safe"
    nested = '<byteStream><fileLocation href="x"/><checksum checksumName="MD5"/>'
    end = "</dataObjectSection>"
    streams = f"{nested * 30_000}{'</byteStream>' * 30_000}{end}"
    manifest.write_text(manifest.read_text().replace(end, streams))
    began = time.monotonic()
    with open_scene(product) as scene:
        assert scene.descriptions == RGBN
    assert time.monotonic() - began < 3
