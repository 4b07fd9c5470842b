"""Sentinel-2 products that are refused: damaged, hostile or none."""

from __future__ import annotations

import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geomoe.errors import GeomoeError
from geomoe.raster import open_scene
from geomoe.raster.formats import product_files
from geomoe.raster.formats.sentinel2 import read_product
from tests.products import images, metadata, write_safe, zipped
from tests.raster.test_safe import RGBN, _file, _refusal


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_safe(tmp_path_factory.mktemp("made") / "S2A_MSIL2A_20240501.SAFE")


@pytest.fixture
def product(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


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


def test_deep_and_wide_metadata_are_refused() -> None:
    for text in ("<a>" * 200_000, "<a>" + "<IMAGE_FILE>A_B02_10m</IMAGE_FILE>" * 20_000 + "</a>",
                 "<a>" * 100_000 + "</a>" * 100_000):  # fmt: skip
        with pytest.raises(GeomoeError):
            read_product("p", "MTD_MSIL2A.xml", text.encode())


def test_streams_inside_streams_are_each_looked_at_once(product: Path) -> None:
    """Of each, what lies right below counts; with all that lies below, this would take half an hour."""
    manifest = product / "manifest.safe"
    nested = '<byteStream><fileLocation href="x"/><checksum checksumName="MD5"/>'
    end = "</dataObjectSection>"
    streams = f"{nested * 30_000}{'</byteStream>' * 30_000}{end}"
    manifest.write_text(manifest.read_text().replace(end, streams))
    with open_scene(product) as scene:
        assert scene.descriptions == RGBN
