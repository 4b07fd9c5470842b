"""Products of several files that want more than to be read; see ``hostile.py``."""

from __future__ import annotations

import json
import os
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from products import IMAGE, write_item, write_safe, zipped

__all__ = ["MANIFESTS", "SOURCES"]

# Each makes what is to be given as the scene, in a folder with a secret.txt, and gives its path.
Make = Callable[[Path, Path, str], Path]

_B08 = f"{IMAGE.format('B08')}.jp2"
_VRT = "<VRTDataset rasterXSize='9' rasterYSize='9'><SourceFilename>{}</SourceFilename></VRTDataset>"


def _metadata(*changes: tuple[str, str], file: str = "MTD_MSIL2A.xml", encoding: str = "utf-8") -> Make:
    """A product whose metadata have some text replaced; ``{at}`` and ``{folder}`` stand for what they are."""

    def make(folder: Path, good: Path, at: str) -> Path:
        path = write_safe(folder / "src.SAFE") / file
        text = path.read_text()
        for old, new in changes:
            text = text.replace(old, new.replace("{at}", at).replace("{folder}", str(folder)), 1)
        path.write_bytes(text.encode(encoding))
        return path.parent

    return make


def _laughs() -> str:
    laughs = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 10))
    return f"<!DOCTYPE a [<!ENTITY l0 'ha'>{laughs}]><a>&l9;"


def _band(change: Callable[[Path, Path, str], object], *, listed: bool = False) -> Make:
    """A product whose band B08 is replaced by something else; ``listed``: its manifest still speaks of it."""

    def make(folder: Path, good: Path, at: str) -> Path:
        root = write_safe(folder / "src.SAFE")
        if not listed:
            (root / "manifest.safe").unlink()
        path = root / _B08
        shutil.move(path, folder / "other.jp2")
        change(path, folder, at)
        return root

    return make


def _folder_link(folder: Path, good: Path, at: str) -> Path:
    root = write_safe(folder / "src.SAFE")
    shutil.move(root / "GRANULE", folder / "elsewhere")
    (root / "GRANULE").symlink_to(folder / "elsewhere")
    return root


def _metadata_link(folder: Path, good: Path, at: str) -> Path:
    root = write_safe(folder / "src.SAFE")
    shutil.move(root / "MTD_MSIL2A.xml", folder / "other.xml")
    (root / "MTD_MSIL2A.xml").symlink_to(folder / "other.xml")
    return root


def _metadata_secret(folder: Path, good: Path, at: str) -> Path:
    (folder / "MTD_MSIL2A.xml").symlink_to(folder / "secret.txt")
    return folder / "MTD_MSIL2A.xml"


def _top(top: str) -> Make:
    return lambda folder, good, at: zipped(write_safe(folder / "p"), folder / "src.zip", top)


def _packed(member: str, content: bytes, mode: int = 0, size: int | None = None, flag: int = 0) -> Make:
    """A zip of a product in which one member is something else.

    Args:
        member: its name, of which there is then only this one.
        content: what it holds.
        mode: of the file, as Unix has it.
        size: that the archive says it has.
        flag: bits to be set, 1 for encrypted.
    """

    def make(folder: Path, good: Path, at: str) -> Path:
        root = write_safe(folder / "p")
        (root / "manifest.safe").unlink()
        (root / member).unlink(missing_ok=True)
        path = zipped(root, folder / "src.zip")
        info = zipfile.ZipInfo(f"a.SAFE/{member}")
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, content)
        raw = bytearray(path.read_bytes())
        entry = raw.rindex(b"PK\x01\x02")
        raw[entry + 8] |= flag
        raw[info.header_offset + 6] |= flag
        if size is not None:
            raw[entry + 24 : entry + 28] = struct.pack("<I", size)
        path.write_bytes(raw)
        return path

    return make


def _long_list(folder: Path, good: Path, at: str) -> Path:
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    many = entry * 500_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(many), 0, 0)
    (folder / "src.zip").write_bytes(many + end)
    return folder / "src.zip"


def _twice(folder: Path, good: Path, at: str) -> Path:
    path = zipped(write_safe(folder / "p"), folder / "src.zip")
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.write(folder / "secret.txt", f"a.SAFE/{_B08}")
    return path


def _nested(folder: Path, good: Path, at: str) -> Path:
    inner = zipped(write_safe(folder / "p"), folder / "inner.zip")
    with zipfile.ZipFile(folder / "src.zip", "w") as archive:
        archive.write(inner, "a.SAFE/inner.zip")
    return folder / "src.zip"


def _two(folder: Path, good: Path, at: str) -> Path:
    path = zipped(write_safe(folder / "p"), folder / "src.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(folder / "p" / "MTD_MSIL2A.xml", "b.SAFE/MTD_MSIL2A.xml")
    return path


def _rare(folder: Path, good: Path, at: str) -> Path:
    return zipped(write_safe(folder / "p"), folder / "src.zip", method=zipfile.ZIP_LZMA)


def _pipe(name: str) -> Make:
    def make(folder: Path, good: Path, at: str) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _href(href: str, beside: str = "") -> Make:
    """An item with one asset there; the other one is good."""

    def make(folder: Path, good: Path, at: str) -> Path:
        if beside:
            (folder / "text.tif").write_text(beside.format(f"/vsicurl/http://{at}/a.tif"))
        place = href.replace("{at}", at).replace("{folder}", str(folder)).replace("{good}", str(good))
        return write_item(folder / "src.json", place)

    return make


def _href_pipe(folder: Path, good: Path, at: str) -> Path:
    os.mkfifo(folder / "pipe.tif")
    return write_item(folder / "src.json", "pipe.tif")


def _href_link(folder: Path, good: Path, at: str) -> Path:
    (folder / "link.tif").symlink_to(folder / "secret.txt")
    return write_item(folder / "src.json", "link.tif")


def _json(text: str) -> Make:
    def make(folder: Path, good: Path, at: str) -> Path:
        (folder / "src.json").write_text(text)
        return folder / "src.json"

    return make


_HEAD = ("<a>", "{}<a>")
_ENTITY = ("05.10", "&e;")
SOURCES: dict[str, Make] = {
    "zip: top is the folder above": _top("../"),
    "zip: top is two folders above": _top("../../"),
    "zip: top is absolute": _top("/"),
    "zip: backslashes": _top("..\\"),
    "zip: a band is a link to a secret": _packed(_B08, b"../secret.txt", 0o120777),
    "zip: a band is a device": _packed(_B08, b"", 0o020666),
    "zip: metadata are a link": _packed("MTD_MSIL2A.xml", b"../secret.txt", 0o120777),
    "zip: 200 MB of metadata in 200 kB": _packed("MTD_MSIL2A.xml", bytes(200 * 2**20)),
    "zip: 200 MB that declare a kilobyte": _packed(_B08, bytes(200 * 2**20), size=1000),
    "zip: a kilobyte that declares 4 GB": _packed(_B08, bytes(1000), size=2**32 - 2),
    "zip: 200 MB that are no band": _packed(_B08, bytes(200 * 2**20)),
    "zip: encrypted": _packed(_B08, b"x" * 100, flag=1),
    "zip: half a million members": _long_list,
    "zip: two members of one name": _twice,
    "zip: in a zip": _nested,
    "zip: two products": _two,
    "zip: packed by LZMA": _rare,
    "zip: a pipe": _pipe("src.zip"),
    "zip: a band that is a VRT": _packed(_B08, _VRT.format("secret.txt").encode()),
    "SAFE: a billion laughs": _metadata(("<a>", _laughs()), _ENTITY),
    "SAFE: a billion laughs in the manifest": _metadata(("<a>", _laughs()), file="manifest.safe"),
    "SAFE: an entity of a secret": _metadata(
        ("<a>", '<!DOCTYPE a [<!ENTITY e SYSTEM "file://{folder}/secret.txt">]><a>'), _ENTITY
    ),
    "SAFE: an entity at an address": _metadata(
        ("<a>", '<!DOCTYPE a [<!ENTITY e SYSTEM "http://{at}/e">]><a>'), _ENTITY
    ),
    "SAFE: a document type at an address": _metadata(("<a>", '<!DOCTYPE a SYSTEM "http://{at}/e.dtd"><a>')),
    "SAFE: an entity of parameters": _metadata(
        ("<a>", '<!DOCTYPE a [<!ENTITY % e SYSTEM "http://{at}/e"> %e;]><a>'), file="manifest.safe"
    ),
    "SAFE: an entity in UTF-16": _metadata(
        ("UTF-8", "UTF-16"), ("<a>", '<!DOCTYPE a [<!ENTITY e SYSTEM "http://{at}/e">]><a>'), _ENTITY,
        encoding="utf-16",
    ),
    "SAFE: an inclusion": _metadata(
        ("<PROCESSING_BASELINE>05.10", "<PROCESSING_BASELINE>"
         '<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="http://{at}/e" parse="text"/>')
    ),
    **{
        f"SAFE: image {name}": _metadata((f"<IMAGE_FILE>{IMAGE.format('B08')}", f"<IMAGE_FILE>{name}"))
        for name in (
            "../secret_B08_10m", "{folder}/secret_B08_10m", "a/../../secret_B08_10m", "/dev/zero_B08_10m",
            "/vsicurl/http://{at}/T_B08_10m", "http://{at}/T_B08_10m", "..\\secret_B08_10m", "&#10;_B08_10m",
            "GRANULE/none_B08_10m",
        )
    },
    "SAFE: a band is a link to a secret": _band(lambda p, folder, _: p.symlink_to(folder / "secret.txt")),
    "SAFE: a band is a link elsewhere": _band(lambda p, folder, _: p.symlink_to(folder / "other.jp2")),
    "SAFE: a band is a device": _band(lambda p, *_: p.symlink_to("/dev/zero")),
    "SAFE: a band is a link to itself": _band(lambda p, *_: p.symlink_to(p)),
    "SAFE: a band is a pipe": _band(lambda p, *_: os.mkfifo(p)),
    "SAFE: a band is a folder": _band(lambda p, *_: p.mkdir()),
    "SAFE: a band is a VRT": _band(
        lambda p, _, at: p.write_text(_VRT.format(f"/vsicurl/http://{at}/a.tif"))
    ),
    "SAFE: a band of another size": _band(lambda p, *_: p.write_bytes(b"0"), listed=True),
    "SAFE: a band that was changed": _band(
        lambda p, folder, _: p.write_bytes((folder / "other.jp2").read_bytes()[:-3] + b"abc"), listed=True
    ),
    "SAFE: the images are elsewhere": _folder_link,
    "SAFE: metadata are elsewhere": _metadata_link,
    "SAFE: metadata are a secret": _metadata_secret,
    **{
        f"item: {href}": _href(href)
        for href in (
            "http://{at}/a.tif", "https://{at}/a.tif", "s3://bucket/a.tif", "file://{folder}/secret.txt",
            "/vsicurl/http://{at}/a.tif", "/vsizip/{good}/a.tif", "/vsistdin/", "vrt://{good}?bands=1",
            "GTIFF_DIR:1:{good}", "/etc/hostname", "/dev/zero", "/dev/stdin", "/proc/self/environ",
            "secret.txt", "{folder}", "src.json", "none.tif", "\0.tif", "data:image/tiff;base64,SUkqAA==",
        )
    },
    "item: a text as a raster": _href("text.tif", "hello"),
    "item: a VRT as a raster": _href("text.tif", _VRT),
    "item: a pipe": _href_pipe,
    "item: a link to a secret": _href_link,
    "item: is a pipe": _pipe("src.json"),
    "item: 100,000 levels": _json("[" * 100_000),
    "item: 9 MB": _json('{"type": "Feature", "assets": {"a": "' + "a" * (9 * 2**20) + '"}}'),
    "item: a collection": _json('{"type": "Collection", "links": []}'),
    "item: text": _json("hello"),
}  # fmt: skip


def _collection(*links: object) -> Make:
    def make(folder: Path, good: Path, at: str) -> Path:
        write_item(folder / "up.json", str(good))
        (folder / "up.json").write_text(
            (folder / "up.json").read_text().replace('"id": "a"', '"id": "../dst"')
        )
        text = json.dumps({"type": "Collection", "links": [{"rel": "item", "href": href} for href in links]})
        (folder / "all.json").write_text(text.replace("{at}", at).replace("{folder}", str(folder)))
        return folder / "all.json"

    return make


# The same for what is given as the manifest of many scenes.
MANIFESTS: dict[str, Make] = {
    "collection: an item at an address": _collection("http://{at}/a.json"),
    "collection: a virtual path": _collection("/vsicurl/http://{at}/a.json"),
    "collection: an item that is a secret": _collection("secret.txt"),
    "collection: an item that is a device": _collection("/dev/zero"),
    "collection: an id that leads elsewhere": _collection("up.json"),
    "collection: a link that is no text": _collection({"a": 1}),
}
