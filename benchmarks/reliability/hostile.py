"""Paths and files that want more than to be read: is any other file opened, any connection made?

    python benchmarks/reliability/hostile.py [--json]

Each case is ``geomoe upscale`` in a process of its own. It has to end with our one line of error and status
1, within its time, without a byte of a secret file in what it wrote or said, and with nothing left in the
folder for temporary files; a server on this machine counts the connections that are made to it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pickle
import signal
import socket
import struct
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import torch
from common import fork, write_scene
from hostile_products import MANIFESTS, SOURCES
from safetensors.torch import save_file

from geomoe import create_model
from geomoe.cli.main import main as command_line
from geomoe.models.weights import Card, save

SECRET = "THE-SECRET-OF-ANOTHER-FILE"
SECONDS = 30


def main() -> None:
    """Parse the arguments, try every case, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    totals = {"cases": 0, "refused": 0, "wrong": 0, "connections": 0, "leaks": 0}
    with canary() as (port, count), tempfile.TemporaryDirectory() as name:
        good, weights = Path(name) / "good.tif", Path(name) / "tiny.safetensors"
        write_scene(good, 20, 20)
        card = Card("edsr", {}, "unit", {}, "", {}, "", {}, "", "", "")
        model = create_model("edsr", scale=2, width=4, blocks=1)
        save(weights, model, card_of(model, card))
        for case, build in cases(port).items():
            folder = Path(name) / "case"
            folder.mkdir()
            (folder / "secret.txt").write_text(SECRET * 100)
            (folder / "temporary").mkdir()
            before = count()
            argv = build(folder, good, weights)
            status, said = run(argv, folder)
            wrote = [path for path in folder.rglob("*") if path.name.startswith(("dst", "experts"))]
            leak = SECRET in said or any(SECRET.encode() in p.read_bytes() for p in wrote if p.is_file())
            lines = [line for line in said.splitlines() if line.strip()]
            refused = status == 1 and len(lines) == 1 and lines[0].startswith("geomoe: error: ")
            connections = count() - before
            totals["cases"] += 1
            totals["refused"] += refused
            totals["leaks"] += leak
            totals["connections"] += connections
            wrote += [*(folder / "temporary").iterdir()]
            wrong = not refused or leak or connections > 0 or bool(wrote)
            totals["wrong"] += wrong
            if wrong or not args.json:
                print(f"{'WRONG' if wrong else 'right'} {case}: status {status}, {said.strip()[:300]}")
            remove(folder)
    print(json.dumps(totals) if args.json else totals)
    if totals["wrong"]:
        raise SystemExit(1)


def card_of(model: torch.nn.Module, card: Card) -> Card:
    """The card with the configuration of the model."""
    from dataclasses import asdict, replace

    return replace(card, config=asdict(model.config))  # type: ignore[call-overload]


Build = Callable[[Path, Path, Path], list[str]]


def cases(port: int) -> dict[str, Build]:
    """Every case by name; each makes its files in a folder and gives the arguments of the command."""
    at = f"127.0.0.1:{port}"
    found: dict[str, Build] = {}

    def src(text: str) -> Build:
        def build(folder: Path, good: Path, weights: Path) -> list[str]:
            path = text.format(folder=folder, good=good, secret=folder / "secret.txt", at=at)
            return ["upscale", path, str(folder / "dst.tif"), "--scale", "2", "--model", str(weights)]

        return build

    def file(name: str, make: Callable[[Path, Path], None]) -> Build:
        def build(folder: Path, good: Path, weights: Path) -> list[str]:
            make(folder / name, good)
            return src("{folder}/" + name)(folder, good, weights)

        return build

    for text in PATHS:
        found[f"path {text}"] = src(text)
    for name, content in DISGUISES.items():
        for suffix in (".tif", ".jp2"):
            found[f"{name} as {suffix}"] = file(
                f"src{suffix}",
                lambda path, good, c=content: path.write_text(c.format(at=at, good=good)),  # type: ignore[misc]
            )
    for name, make in FILES.items():
        found[name] = file("src.tif", make)
    for name, beside in NEIGHBOURS.items():
        found[f"neighbour {name}"] = file("src.tif", _beside(name, beside))
    for name, source in SOURCES.items():
        found[name] = _product(source, at, ["upscale", "{place}", "{folder}/dst.tif"])
    for name, source in MANIFESTS.items():
        found[name] = _product(source, at, ["upscale", "--manifest", "{place}"])
    for name, change in WEIGHTS.items():
        found[f"weights: {name}"] = _weights(change)
    for text in TARGETS:
        found[f"target {text}"] = _target(text, at)
    found["work folder is a link"] = _work_link
    found["lock is a link"] = _lock_link
    return found


PATHS = (
    "http://{at}/a.tif", "https://{at}/a.tif", "ftp://{at}/a.tif", "s3://bucket/a.tif", "gs://bucket/a.tif",
    "az://bucket/a.tif", "file://{secret}", "zip://{good}!a.tif", "zip+https://{at}/a.zip!a.tif",
    "/vsicurl/http://{at}/a.tif", "/vsicurl_streaming/http://{at}/a.tif", "/vsis3/bucket/a.tif",
    "/vsigs/bucket/a.tif", "/vsiaz/bucket/a.tif", "/vsiwebhdfs/http://{at}/a.tif", "/vsizip/{good}/a.tif",
    "/vsitar/{good}/a.tif", "/vsigzip/{good}", "/vsi7z/{good}/a.tif", "/vsistdin/", "/vsimem/a.tif",
    "/vsisubfile/0_100,{secret}", "/vsisparse/{secret}", "/vsicached?chunk_size=1024&file={secret}",
    "/vsicrypt/key=0123456789012345,file={secret}", "vrt://{good}?bands=1", "GTIFF_DIR:1:{good}",
    "GTIFF_RAW:{good}", "NETCDF:{secret}:a", "HDF5:{secret}://a", "WMS:http://{at}/wms", "WMTS:http://{at}/a",
    "WCS:http://{at}/wcs", "OGCAPI:http://{at}/", "STACIT:http://{at}/a.json", "PLMosaic:api_key=a",
    "PG:host=127.0.0.1 dbname=a", "RASTERLITE2:{secret}", "DERIVED_SUBDATASET:LOGAMPLITUDE:{good}",
    "SENTINEL2_L1C:/vsicurl/http://{at}/a.xml:10m:EPSG_32633", "MEM:::DATAPOINTER=1,PIXELS=9,LINES=9",
    "<VRTDataset rasterXSize='9' rasterYSize='9'></VRTDataset>", "{secret}", "{folder}", "/dev/zero",
    "/dev/stdin", "/proc/self/environ", "{folder}/\0.tif", "{folder}/none.tif", "", "-",
)  # fmt: skip

_VRT = """<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1"{sub}>
{source}</VRTRasterBand></VRTDataset>"""
_SIMPLE = "<SimpleSource><SourceFilename>{{place}}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
DISGUISES = {
    "VRT of another raster": _VRT.format(sub="", source=_SIMPLE).replace("{{place}}", "{good}"),
    "VRT of an address": _VRT.format(sub="", source=_SIMPLE).replace(
        "{{place}}", "/vsicurl/http://{at}/a.tif"
    ),
    "VRT of raw bytes": _VRT.format(
        sub=' subClass="VRTRawRasterBand"',
        source="<SourceFilename relativetoVRT='1'>secret.txt</SourceFilename><ImageOffset>0</ImageOffset>"
        "<PixelOffset>1</PixelOffset><LineOffset>20</LineOffset>",
    ),
    "WMS service": "<GDAL_WMS><Service name='TMS'><ServerUrl>http://{at}/${{z}}</ServerUrl></Service>"
    "<DataWindow><SizeX>9</SizeX><SizeY>9</SizeY></DataWindow></GDAL_WMS>",
    "MRF of an address": "<MRF_META><CachedSource><Source>http://{at}/a.tif</Source></CachedSource>"
    "<Raster><Size x='20' y='20' c='1'/></Raster></MRF_META>",
    "STAC tiled assets": '{{"stac_version": "1.0.0", "assets": {{"a": {{"href": "http://{at}/a.tif"}}}}}}',
    "entities": "<!DOCTYPE a [<!ENTITY b SYSTEM 'secret.txt'>]><VRTDataset>&b;</VRTDataset>",
}  # fmt: skip


def _tiff(path: Path, width: int, height: int, **tags: int) -> None:
    """A TIFF of a header alone, whose tags promise pixels."""
    given = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 4}
    given.update({int(tag.removeprefix("t")): value for tag, value in tags.items()})
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(given.items()))
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(given)) + entries + bytes(4))


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, _: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def _zip(path: Path, good: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.write(good, "../../dst.tif")


def _tar(path: Path, good: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.add(good, "../../dst.tif")


def _laughs(path: Path, good: Path) -> None:
    laughs = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 10))
    path.write_text(f"<!DOCTYPE a [<!ENTITY l0 'ha'>{laughs}]><a>&l9;</a>")


FILES: dict[str, Callable[[Path, Path], None]] = {
    "a pipe that nobody writes to": _fifo,
    "a socket": _socket,
    "a folder": lambda path, _: path.mkdir(),
    "a link to a secret": lambda path, _: path.symlink_to(path.with_name("secret.txt")),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to nothing": lambda path, _: path.symlink_to(path.with_name("nothing")),
    "a zip": _zip,
    "a tar": _tar,
    "a gzip": lambda path, good: path.write_bytes(gzip.compress(good.read_bytes())),
    "a pickle": lambda path, _: path.write_bytes(pickle.dumps(print)),
    "a billion laughs": _laughs,
    "nothing": lambda path, _: path.touch(),
    "a byte": lambda path, _: path.write_bytes(b"I"),
    "2^31 pixels in a strip": lambda path, _: _tiff(path, 2**31 - 1, 1),
    "2^62 pixels": lambda path, _: _tiff(path, 2**31 - 1, 2**31 - 1),
    "2^32 pixels in a strip": lambda path, _: _tiff(path, 65536, 65536),
    "65535 bands": lambda path, _: _tiff(path, 64, 64, t277=65535),
    "a strip beyond the end": lambda path, _: _tiff(path, 64, 64, t273=10**6),
    "a directory that points at itself": lambda path, _: path.write_bytes(
        struct.pack("<2sHIH", b"II", 42, 8, 0) + struct.pack("<I", 8)
    ),
    "half of a file": lambda path, good: path.write_bytes(good.read_bytes()[: good.stat().st_size // 2]),
}


def _beside(name: str, content: str) -> Callable[[Path, Path], None]:
    def make(path: Path, good: Path) -> None:
        with rasterio.open(path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8") as file:
            file.write(np.ones((1, 9, 9), dtype=np.uint8))
        path.with_name("src" + name).write_text(content.replace("{good}", str(good)))

    return make


NEIGHBOURS = {
    ".tif.msk": DISGUISES["VRT of raw bytes"],
    ".tif.aux.xml": "<PAMDataset><SRS>LOCAL_CS[]</SRS><GeoTransform>1,1,1,1,1,1</GeoTransform></PAMDataset>",
    ".tfw": "1\n0\n0\n-1\n0\n0\n",
    "_RPC.TXT": "LINE_OFF: 1",
    ".tab": 'Definition Table\nFile "secret.txt"\n',
}


def _product(make: Callable[[Path, Path, str], Path], at: str, argv: list[str]) -> Build:
    def build(folder: Path, good: Path, weights: Path) -> list[str]:
        place = make(folder, good, at)
        given = [text.format(place=place, folder=folder) for text in argv]
        return [*given, "--scale", "2", "--model", str(weights)]

    return build


def _weights(change: Callable[[Path, Path], object]) -> Build:
    def build(folder: Path, good: Path, weights: Path) -> list[str]:
        path = folder / "w.safetensors"
        given = change(path, weights)
        name = given if isinstance(given, str) else str(path)
        return ["upscale", str(good), str(folder / "dst.tif"), "--scale", "2", "--model", name]

    return build


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo " + SECRET,)


WEIGHTS: dict[str, Callable[[Path, Path], object]] = {
    "a pickle that runs a command": lambda path, _: path.write_bytes(pickle.dumps(_Runs())),
    "a checkpoint of torch": lambda path, _: torch.save({"a": torch.ones(2)}, path),
    "a header of 2^40 bytes": lambda path, _: path.write_bytes(struct.pack("<Q", 2**40) + b"{}"),
    "a header that is no JSON": lambda path, _: path.write_bytes(struct.pack("<Q", 8) + b"not json"),
    "without a card": lambda path, _: save_file({"a": torch.ones(2)}, path),
    "a card that is a list": lambda path, _: save_file({"a": torch.ones(2)}, path, {"geomoe": "[1]"}),
    "a card of another class": lambda path, _: save_file(
        {"a": torch.ones(2)}, path, {"geomoe": json.dumps({"model": "os.system", "config": {"scale": 2}})}
    ),
    "a model of 2^40 weights": lambda path, _: save_file({"a": torch.ones(2)}, path, {"geomoe": json.dumps(
        {"model": "edsr", "config": {"scale": 2, "width": 2**20}, "radiometry": "unit", "data": {},
         "degradation": "", "recipe": {}, "protocol": "", "scores": {}, "commit": "", "date": "",
         "licence": ""})}),
    "an address": lambda *_: "https://example.invalid/w.safetensors",
    "a virtual path": lambda *_: "/vsicurl/https://example.invalid/w.safetensors",
    "a device": lambda *_: "/dev/zero",
    "a pipe": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
    "cut": lambda path, weights: path.write_bytes(weights.read_bytes()[:-10]),
}  # fmt: skip

TARGETS = (
    "http://{at}/dst.tif", "/vsicurl/http://{at}/dst.tif", "/vsimem/dst.tif",
    "/vsizip/{folder}/a.zip/dst.tif", "s3://bucket/dst.tif", "/dev/full", "{folder}/none/dst.tif",
    "{folder}", "{folder}/secret.txt",
    "{folder}/\0dst.tif", "{good}",
)  # fmt: skip


def _target(text: str, at: str) -> Build:
    def build(folder: Path, good: Path, weights: Path) -> list[str]:
        path = text.format(folder=folder, good=good, at=at)
        return ["upscale", str(good), path, "--scale", "2", "--model", str(weights), "--overwrite"]

    return build


def _work_link(folder: Path, good: Path, weights: Path) -> list[str]:
    (folder / "elsewhere").mkdir()
    (folder / ".dst.tif.geomoe").symlink_to(folder / "elsewhere")
    return ["upscale", str(good), str(folder / "dst.tif"), "--scale", "2", "--model", str(weights)]


def _lock_link(folder: Path, good: Path, weights: Path) -> list[str]:
    (folder / ".dst.tif.geomoe").mkdir()
    (folder / ".dst.tif.geomoe" / "lock").symlink_to(folder / "secret.txt")
    return ["upscale", str(good), str(folder / "dst.tif"), "--scale", "2", "--model", str(weights)]


def run(argv: list[str], folder: Path) -> tuple[int, str]:
    """Status of the command, -9 if it had to be killed, and what it said."""
    heard = folder / "heard"

    def work() -> None:
        handle = os.open(heard, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        tempfile.tempdir = str(folder / "temporary")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            command_line(argv)
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 99)

    child, until = fork(work), time.monotonic() + SECONDS
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), heard.read_text(errors="replace")


@contextmanager
def canary() -> Iterator[tuple[int, Callable[[], int]]]:
    """A server on this machine: its port, and how many connections were made to it."""
    heard = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            nonlocal heard
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                heard += 1
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass
        while heard == 0:  # it counts
            time.sleep(0.01)
        yield port, lambda: heard
        server.shutdown(socket.SHUT_RDWR)


def remove(folder: Path) -> None:
    """The folder and what is in it; links are not followed."""
    for entry in sorted(folder.rglob("*"), reverse=True):
        if entry.is_dir() and not entry.is_symlink():
            entry.rmdir()
        else:
            entry.unlink()
    folder.rmdir()


if __name__ == "__main__":
    main()
