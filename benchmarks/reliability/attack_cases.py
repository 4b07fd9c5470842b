"""What ``attack_inputs.py`` tries, by kind."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
import torch
from safetensors.torch import save_file

from geomoe.models.weights import Card
from products import write_safe, zipped

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.tiffs import METADATA, Value, geo_tags, image_tags, write_tiff

__all__ = ["Case", "budgets", "escapes", "grids", "pipes", "promises"]

Build = Callable[[Path, Path, Path], list[str]]
EITHER, REFUSED = (0, 1), (1,)


@dataclass(frozen=True)
class Case:
    """A try: its files are made in a folder, beside a good scene and weights; it gives a command.

    Attributes:
        status: that the command may end with.
        lines: of an error, at most; more where a table of results goes before it.
        memory: bytes that the process may have at its peak, where the command is told so.
        seconds: of a processor that it may take; most take a tenth of one.
    """

    name: str
    build: Build
    status: tuple[int, ...] = EITHER
    lines: int = 1
    memory: int | None = None
    seconds: float = 20


def _info(make: Callable[[Path], Path]) -> Build:
    return lambda folder, _, weights: ["info", str(make(folder)), "--scale", "2", "--model", str(weights)]


def _tiff(*directories: dict[int, Value]) -> Build:
    return _info(lambda folder: write_tiff(folder / "src.tif", *directories))


def budgets() -> list[Case]:
    """Files that say more than they hold."""
    return [*_blocks(), *_strips(), *_metadata(), *_streams(), *_items(), *_cards(), *_manifests()]


def _blocks() -> list[Case]:
    cases = []
    for side, kind, bits in product((2048, 16_384, 30_000, 92_672, 2**30), (0, 1, 4, 5), (1, 8, 32)):
        claimed = image_tags(t254=kind, t258=bits, t259=8, t322=side, t323=side)
        first = () if kind == 0 else (image_tags(),)
        cases.append(Case(f"a tile of {side}, {bits} bits, kind {kind}", _tiff(*first, claimed)))
    return cases


def _strips() -> list[Case]:
    def make(folder: Path, side: int, bands: int, dtype: str, interleave: str) -> Path:
        path = folder / "src.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=side, height=side, count=bands, dtype=dtype, blockysize=side,
            compress="deflate", interleave=interleave, photometric="MINISBLACK", sparse_ok=True,
        ) as file:  # fmt: skip
            file.write(np.ones((1, 9), dtype), 1, window=rasterio.windows.Window(0, 0, 9, 1))
        return path

    sizes = product((1500, 4000, 9000, 16_000), (1, 4, 8), ("uint8", "uint16"), ("band", "pixel"))
    return [
        Case(f"strips of {size}", _info(lambda folder, size=size: make(folder, *size)))  # type: ignore[misc]
        for size in sizes
        if size[0] ** 2 * size[1] < 2.2e9  # those that GDAL writes in seconds
    ]


def promises() -> list[Case]:
    """Scenes whose blocks are large or small, upscaled with ``--memory``."""

    def make(folder: Path, weights: Path, limit: int, options: dict[str, object]) -> list[str]:
        path = folder / "src.tif"
        said = {"count": 4, "dtype": "uint16", "compress": "deflate", "photometric": "MINISBLACK"} | options
        with rasterio.open(path, "w", driver="GTiff", width=1400, height=1400, **said) as file:
            for band in range(1, file.count + 1):
                file.write(np.full((1400, 1400), 7 * band, file.dtypes[0]), band)
        model = ["--scale", "2", "--model", str(weights), "--bands", "1", "--memory", f"{limit}MB"]
        return ["upscale", str(path), str(folder / "dst.tif"), *model]

    layouts: dict[str, dict[str, object]] = {
        "tiles": {"tiled": True, "blockxsize": 256, "blockysize": 256},
        "strips of bands": {"blockysize": 1400, "interleave": "band", "count": 16},
        "strips of pixels": {"blockysize": 1400, "interleave": "pixel", "count": 16},
        "floats": {"blockysize": 1400, "interleave": "pixel", "dtype": "float32", "count": 8},
        "bytes": {"blockysize": 1400, "interleave": "band", "dtype": "uint8", "count": 32},
    }
    return [
        Case(f"{name} in {limit} MB",
             lambda folder, _, weights, n=limit, o=options: make(folder, weights, n, o),  # type: ignore[misc]
             memory=limit * 10**6, seconds=90)
        for (name, options), limit in product(layouts.items(), (420, 480, 600))
    ]  # fmt: skip


def _metadata() -> list[Case]:
    cases = []
    for count in (100, 1000, 9000, 20_000, 200_000):
        items = "".join(f'<Item name="n{i}">v</Item>' for i in range(count))
        one = f"<GDALMetadata>{items}</GDALMetadata>".encode()
        cases.append(Case(f"{count} items", _tiff(image_tags() | {METADATA: one})))
        each = one.replace(b"<Item ", b'<Item sample="0" ')
        cases.append(Case(f"{count} items of a band", _tiff(image_tags() | {METADATA: each})))
        nested = b"<GDALMetadata>" + b"<Item>" * count
        cases.append(Case(f"{count} items in one another", _tiff(image_tags() | {METADATA: nested})))
        points = struct.pack("<6d", 1, 1, 0, 400000, 5000000, 0) * count
        cases.append(Case(f"{count} points", _tiff(image_tags() | geo_tags("a CRS") | {33922: points})))
    return cases


def _streams() -> list[Case]:
    def make(folder: Path, depth: int, packed: bool) -> Path:
        root = write_safe(folder / "src.SAFE")
        manifest = root / "manifest.safe"
        nested = '<byteStream><fileLocation href="x"/><checksum/>' * depth + "</byteStream>" * depth
        manifest.write_text(manifest.read_text().replace("</a>", f"{nested}</a>"))
        return zipped(root, folder / "src.zip") if packed else root

    return [
        Case(f"{depth} streams in one another{', packed' * packed}",
             _info(lambda folder, d=depth, p=packed: make(folder, d, p)))  # type: ignore[misc]
        for depth, packed in product((100, 3000, 50_000), (False, True))
    ]  # fmt: skip


def _items() -> list[Case]:
    """Items beside a file, for ``geomoe verify``: lists without end where a schema looks."""
    places: dict[str, Callable[[int], dict[str, object]]] = {
        "links": lambda n: {"links": [1] * n},
        "links that are objects": lambda n: {"links": [{}] * n},
        "assets": lambda n: {"assets": {str(i): {} for i in range(n)}},
        "bands": lambda n: {"assets": {"data": {"href": "./src.tif", "bands": [{"name": 1}] * n}}},
        "points": lambda n: {"geometry": {"type": "Polygon", "coordinates": [[[1, 2]] * n]}},
        "points that are text": lambda n: {"geometry": {"type": "Polygon", "coordinates": [[["a"]] * n]}},
        "extensions": lambda n: {"stac_extensions": ["a"] * n},
        "levels": lambda n: {"properties": json.loads('{"a":' * min(n, 900) + "1" + "}" * min(n, 900))},
        "bounds": lambda n: {"bbox": [1] * n},
        "history": lambda n: {"properties": {"datetime": None, "geomoe:configuration": [[]] * n}},
    }

    def make(folder: Path, good: Path, change: dict[str, object]) -> list[str]:
        (folder / "src.tif").write_bytes(good.read_bytes())
        item = {
            "type": "Feature", "stac_version": "1.1.0", "id": "a", "geometry": None, "links": [],
            "properties": {"datetime": "2024-05-01T10:06:01Z"}, "assets": {"data": {"href": "./src.tif"}},
            "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        }  # fmt: skip
        (folder / "src.stac.json").write_text(json.dumps(item | change))
        return ["verify", str(folder / "src.stac.json")]

    return [
        Case(f"{count} {what}", lambda folder, good, _, p=place, n=count: make(folder, good, p(n)), REFUSED)  # type: ignore[misc]
        for count, (what, place) in product((2000, 50_000, 1_000_000), places.items())
    ]


def _cards() -> list[Case]:
    options = [
        ("edsr", "blocks"), ("edsr", "width"), ("rcan", "groups"), ("rcan", "blocks"), ("rcan", "width"),
        ("rrdbnet", "growth"), ("rrdbnet", "blocks"), ("hat", "window"), ("hat", "embed_dim"),
        ("haunet", "width"), ("swinir", "embed_dim"), ("spt", "width"), ("mfg_hmoe", "experts_per_group"),
        ("mfg_hmoe_light", "width"),
    ]  # fmt: skip

    def make(folder: Path, model: str, option: str, value: object) -> list[str]:
        card = Card(model, {"scale": 2, option: value}, "unit", {}, "", {}, "", {}, "", "", "")
        save_file({"a": torch.ones(1500)}, folder / "w.safetensors", {"geomoe": json.dumps(asdict(card))})
        return ["models", str(folder / "w.safetensors")]

    values: tuple[object, ...] = (5000, 60_000, 10**9, [10**5] * 10**4)
    return [
        Case(f"{model} of {str(value)[:20]} {option}",
             lambda folder, *_, m=model, o=option, v=value: make(folder, m, o, v), REFUSED)  # type: ignore[misc]
        for (model, option), value in product(options, values)
    ]  # fmt: skip


def _manifests() -> list[Case]:
    def make(folder: Path, weights: Path, text: str) -> list[str]:
        (folder / "a.csv").write_text(text)
        return [
            "upscale",
            "--manifest",
            str(folder / "a.csv"),
            "--dry-run",
            "--scale",
            "2",
            "--model",
            str(weights),
        ]

    texts = {
        "a million lines": "src,dst\n" + "".join(f"a,b{i}.tif\n" for i in range(1_000_000)),
        "a cell of 10 MB": f"src,dst\n{'a' * 10**7},b.tif\n",
        "a million columns": "src,dst," + "a," * 10**6,
        "80 MB": "src,dst\n" + "\n" * (80 * 2**20),
        "quotes without an end": 'src,dst\n"' + "a,b\n" * 10**6,
    }
    return [
        Case(f"a list of {what}", lambda folder, _, weights, t=text: make(folder, weights, t), REFUSED)  # type: ignore[misc]
        for what, text in texts.items()
    ]


_UTM = (
    'PROJCS["x",GEOGCS["g",DATUM["d",SPHEROID["Bessel 1841",6377397.155,299.1528128]DATUM],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1]END]'
)
_G = (
    'GEOGCRS["g",DATUM["d",ELLIPSOID["e",6377397.155,299.15]],CS[ellipsoidal,2],AXIS["lat",north],'
    'AXIS["lon",east],ANGLEUNIT["degree",0.0174532925199433]]'
)


def _utm(datum: str = "", end: str = "", method: str = "Transverse_Mercator") -> str:
    text = _UTM.replace("DATUM]", f"{datum}]").replace("END]", f"{end}]")
    return text.replace("Transverse_Mercator", method)


NAMING = {
    "a datum": _utm(',EXTENSION["PROJ4_GRIDS","GRID"]'),
    "a datum in small letters": _utm(',extension["proj4_grids","GRID"]'),
    "a datum in round brackets": _utm(',EXTENSION("PROJ4_GRIDS","GRID")'),
    "a name with a bar": _utm(',EXTENSION["PROJ4_GRIDS","GRID"]').replace('"x"', '"x|y"'),
    "a name with a quote": _utm(',EXTENSION["PROJ4_GRIDS","GRID"]').replace('"x"', '"x"" | y"'),
    "PROJ's language": _utm(end=',EXTENSION["PROJ4","+proj=utm +zone=33 +ellps=bessel +nadgrids=GRID"]'),
    "an optional grid": _utm(end=',EXTENSION["PROJ4","+proj=utm +zone=33 +nadgrids=@GRID,null"]'),
    "a geoid": _utm(end=',EXTENSION["PROJ4","+proj=utm +zone=33 +geoidgrids=GRID"]'),
    "a list of codes": _utm(end=',EXTENSION["PROJ4","+init=GRID:1"]'),
    "a pipeline": _utm(end=',EXTENSION["PROJ4","+proj=pipeline +step +proj=hgridshift +grids=GRID"]'),
    "a method": _utm(method="PROJ hgridshift grids=GRID"),
    "a bound CRS": f'BOUNDCRS[SOURCECRS[{_G}],TARGETCRS[{_G}],ABRIDGEDTRANSFORMATION["t",METHOD["NTv2"],'
    'PARAMETERFILE["f","GRID"]]]',
    "a model of the geoid": f'COMPOUNDCRS["c",{_G},VERTCRS["h",VDATUM["v"],CS[vertical,1],AXIS["up",up],'
    'LENGTHUNIT["metre",1],GEOIDMODEL["PROJ GRID"]]]',
}  # fmt: skip


def grids(at: str) -> list[Case]:
    """A CRS that names a pipe, standard input or an address, in a GeoTIFF, a JPEG 2000 or ground control."""
    places = ("{folder}/pipe", "/dev/stdin", f"http://{at}/a.tif", f"/vsicurl/http://{at}/a.tif")

    def make(folder: Path, text: str, place: str, suffix: str) -> Path:
        os.mkfifo(folder / "pipe")
        said = text.replace("GRID", place.format(folder=folder))
        tags = image_tags() | geo_tags(f"ESRI PE String = {said}")
        if suffix == "points":
            ties = struct.pack("<6d", 0, 0, 0, 4e5, 5e6, 0) + struct.pack("<6d", 64, 64, 0, 4.1e5, 5.1e6, 0)
            tags = {tag: value for tag, value in tags.items() if tag != 33550} | {33922: ties * 2}
        path = write_tiff(folder / "src.tif", tags)
        return _boxed(folder / "src.jp2", path.read_bytes()) if suffix == "jp2" else path

    return [
        Case(f"{naming} at {place} in a {suffix}",
             _info(lambda folder, t=text, p=place, s=suffix: make(folder, t, p, s)), REFUSED)  # type: ignore[misc]
        for (naming, text), place, suffix in product(NAMING.items(), places, ("tif", "jp2", "points"))
    ]  # fmt: skip


def _boxed(path: Path, tiff: bytes) -> Path:
    """A JPEG 2000 that says where it lies by a GeoTIFF (GeoJP2)."""
    with rasterio.open(path, "w", driver="JP2OpenJPEG", width=64, height=64, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 64, 64), np.uint8))
    box = b"uuid" + bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03") + tiff
    content = path.read_bytes()
    place = content.index(b"jp2c") - 4
    path.write_bytes(content[:place] + struct.pack(">I", len(box) + 4) + box + content[place:])
    return path


def pipes() -> list[Case]:
    """What never comes to an end, wherever a file is given."""

    def put(path: Path, what: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if what == "a pipe":
            os.mkfifo(path)
        elif what == "a folder":
            path.mkdir()
        else:
            path.symlink_to(what)
        return path

    def case(name: str, command: list[str]) -> list[Case]:
        def build(folder: Path, good: Path, weights: Path, what: str) -> list[str]:
            place = put(folder / name, what)
            said = {
                "place": place,
                "folder": folder,
                "good": good,
                "weights": weights,
                "top": folder / "a.SAFE",
            }
            return [part.format(**said) for part in command]

        return [
            Case(f"{command[0]} {name} is {what}", lambda *given, w=what: build(*given, w), REFUSED)  # type: ignore[misc]
            for what in ("a pipe", "a folder", "/dev/zero", "/dev/stdin", "/dev/tty")
        ]

    model = ["--scale", "2", "--model", "{weights}"]
    return [
        *case("a.csv", ["upscale", "--manifest", "{place}", *model]),
        *case("a.json", ["upscale", "--manifest", "{place}", *model]),
        *case("src.json", ["info", "{place}", *model]),
        *case("src.tif", ["info", "{place}", *model]),
        *case("src.zip", ["info", "{place}", *model]),
        *case("a.SAFE/MTD_MSIL2A.xml", ["info", "{top}", *model]),
        *case("w.safetensors", ["info", "{good}", "--scale", "2", "--model", "{place}"]),
        *case("w.safetensors", ["models", "{place}"]),
        *case("out.tif", ["verify", "{place}"]),
        *case("out.stac.json", ["verify", "{place}"]),
        *case("job.yaml", ["benchmark", "{place}", "--data", "{folder}"]),
    ]


ESCAPES = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]8;;http://a\x1b\\",
    "\x9b31m",
    "a\rb",
    "\u202e",
    "\x00a",
    "\x08\x7f",
)


def escapes() -> list[Case]:
    """What a terminal would obey, wherever others write text."""

    def band(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        with rasterio.open(
            folder / "src.tif", "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8"
        ) as file:
            file.write(np.ones((1, 9, 9), np.uint8))
            file.set_band_description(1, f"b{text}d".replace("\0", ""))
        return ["info", str(folder / "src.tif"), "--scale", "2", "--model", str(weights)]

    def name(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        path = folder / f"a{text}b.tif".replace("\0", "").replace("/", "")
        path.write_bytes(good.read_bytes())
        return ["info", str(path), "--scale", "2", "--model", str(weights)]

    def missing(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        name = f"a{text}b.tif".replace("/", "").replace("\0", "")  # which no argument can have
        return ["verify", str(folder / name), str(folder / "b.tif")]

    def card(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        said = Card(text, {text: text}, "unit", {text: text}, text, {}, text, {}, text, text, text)
        save_file({"a": torch.ones(1)}, folder / "w.safetensors", {"geomoe": json.dumps(asdict(said))})
        return ["models", str(folder / "w.safetensors")]

    def cell(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        (folder / "a.csv").write_text(f'src,dst\n"a{text}.tif","b{text}.tif"\n')
        return [
            "upscale",
            "--manifest",
            str(folder / "a.csv"),
            "--dry-run",
            "--scale",
            "2",
            "--model",
            str(weights),
        ]

    def head(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        (folder / "a.csv").write_text(f'src,"a{text}"\na,b\n')
        return ["upscale", "--manifest", str(folder / "a.csv"), "--scale", "2", "--model", str(weights)]

    def link(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        links = [{"rel": "item", "href": f"http://{text}"}]
        (folder / "a.json").write_text(json.dumps({"type": "Collection", "links": links}))
        return ["upscale", "--manifest", str(folder / "a.json"), "--scale", "2", "--model", str(weights)]

    def asset(folder: Path, good: Path, weights: Path, text: str) -> list[str]:
        item = {"type": "Feature", "id": text, "properties": {}, "assets": {text: {"href": f"{text}.tif"}}}
        (folder / "src.json").write_text(json.dumps(item))
        return ["info", str(folder / "src.json"), "--scale", "2", "--model", str(weights)]

    makers = (band, name, missing, card, cell, head, link, asset)
    return [
        Case(f"{text!a} in {make.__name__}", lambda *given, m=make, t=text: m(*given, t), lines=8)  # type: ignore[misc]
        for make, text in product(makers, ESCAPES)
    ]
