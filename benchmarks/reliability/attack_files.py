"""Files under attack: nothing is written through a link, over what is read, or of two states of a scene.

    python benchmarks/reliability/attack_files.py [--kinds links,overlaps] [--every 1] [--json]

``links``: in the folder of the work, before a job and in the middle of one, each of its files is a link, a
second name of a precious file, a folder, a pipe, or another user's (which takes root). ``overlaps``: every
command that writes is given, as what to write, each file that it reads, by its name, a link, a second name
and a way through a link. ``changes``: a scene (GeoTIFF, item, product) is rewritten, replaced, cut, removed
or has a byte flipped behind its time, after each tile. ``environment``: settings of GDAL and of what torch
computes with; the bytes are those of a plain environment, and tiles of two arithmetics never meet in a file.
``items``: each value of an item is changed, and removed. ``beside``: files that other tools would read with
an output. ``twins``: two outputs at once that share an item. ``writes``: a file is written anew by a process
that ends before each step of it.

A try fails if a precious file changed, if a file is there that should not be or is not whole, if a change is
overlooked, or if what is said is more than a line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from common import fork, sha, tiny, write_scene

from geomoe.cli.main import main as geomoe
from geomoe.errors import GeomoeError
from geomoe.files import atomic_write
from geomoe.pipeline import upscale
from geomoe.pipeline.verification import verify
from products import write_safe

Attempts = Iterator[tuple[str, Callable[[], str]]]
"""What is tried, in words, and what tries it: says what went wrong, nothing if it is empty."""
WORK = (
    "job.json", "journal", "commit", "part.tif", "part.json", "scratch.tif", "scratch.tif.msk", "backup.tif",
    "backup.json", "lock", "lock.held",
)  # fmt: skip
SETTINGS = (
    "GDAL_TIFF_OVR_BLOCKSIZE=128", "ZLEVEL_OVERVIEW=1", "COMPRESS_OVERVIEW=LZW", "PREDICTOR_OVERVIEW=1",
    "INTERLEAVE_OVERVIEW=BAND", "PHOTOMETRIC_OVERVIEW=RGB", "GDAL_TIFF_DEFLATE_SUBCODEC=ZLIB",
    "GDAL_GEOREF_SOURCES=NONE", "GDAL_TIFF_ENDIANNESS=BIG", "CPL_TMPDIR=/nonexistent", "TMPDIR=/nonexistent",
    "GDAL_OVR_PROPAGATE_NODATA=YES", "GTIFF_DONT_WRITE_BLOCKS=YES", "GTIFF_POINT_GEO_IGNORE=YES",
    "GDAL_DEFAULT_CREATE_COPY=YES", "GDAL_TIFF_INTERNAL_MASK=NO", "GDAL_TIFF_INTERNAL_MASK_TO_8BIT=NO",
    "TIFF_READ_STREAMING=YES", "GTIFF_IMPORT_FROM_EPSG=NO", "GTIFF_ESRI_CITATION=NO", "OSR_WKT_FORMAT=NO",
    "GDAL_PAM_ENABLED=YES", "GDAL_CACHEMAX=1", "GDAL_NUM_THREADS=ALL_CPUS", "OMP_NUM_THREADS=2", "LC_ALL=C",
    "TZ=Asia/Tokyo",
)  # fmt: skip
ARITHMETIC = ("ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=SSE41", "MKL_CBWR=COMPATIBLE")
ENDINGS = (
    ".tif.ovr",
    ".tif.msk",
    ".tif.aux.xml",
    ".tfw",
    ".TFW",
    ".tifw",
    ".wld",
    ".tab",
    "_rpc.txt",
    ".rpb",
)
STEPS = ("open", "fsync", "replace", "unlink")


def main() -> None:
    """Parse the arguments, attack, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--every", type=int, default=1, help="which of the tries are made")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, object] = {"tries": 0, "failures": 0}
    worst, tries, failures = 0.0, 0, 0
    for kind in args.kinds.split(","):
        count = 0
        with tempfile.TemporaryDirectory() as name:
            for title, attempt in list(KINDS[kind](Path(name).resolve()))[:: args.every]:
                began = time.monotonic()
                wrong = attempt()
                worst = max(worst, time.monotonic() - began)
                count, failures = count + 1, failures + bool(wrong)
                if wrong or not args.json:
                    print(f"{kind} {title}: {time.monotonic() - began:.1f} s {wrong}", file=sys.stderr)
        found[kind] = count
        tries += count
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found |= {
        "tries": tries,
        "failures": failures,
        "worst_seconds": round(worst, 1),
        "worst_mb": most // 1000,
    }
    print(json.dumps(found) if args.json else found)
    if failures:
        raise SystemExit(1)


def job(work: Callable[[], object]) -> tuple[str, str]:
    """Run something in a child: how it ended (``done``, ``refused`` or ``crashed``), and what it said."""
    with tempfile.TemporaryFile("w+") as said:

        def child() -> None:
            os.dup2(said.fileno(), 2)
            try:
                work()
            except GeomoeError as error:
                os.write(2, str(error).encode())
                os._exit(3)
            except SystemExit as stop:
                os._exit(3 if stop.code == 1 else int(stop.code or 0))

        _, status = os.waitpid(fork(child), 0)
        said.seek(0)
        end = {0: "done", 3: "refused"}.get(os.waitstatus_to_exitcode(status), "crashed")
        return end, said.read()


def to_scale(src: Path, out: Path, **options: Any) -> None:
    """Super-resolve a scene by a tiny model."""
    upscale(src, out, model=tiny(), scale=2, **options)


class After:
    """Does something when so many tiles are done, as progress of a job."""

    def __init__(self, tiles: int, what: Callable[[], object]) -> None:
        self.left, self.what = tiles, what

    def start(self, total: int, done: int, note: str) -> None:
        """Nothing."""

    def advance(self) -> None:
        """One more tile is done."""
        self.left -= 1
        if self.left == 0:
            self.what()

    def close(self) -> None:
        """Nothing."""


def links(folder: Path) -> Attempts:
    """What somebody prepared in the folder of the work."""
    src = write_scene(folder / "src.tif", 40, 40)
    precious = folder / "precious"
    ways: dict[str, Callable[[Path], object]] = {
        "link": lambda place: place.symlink_to(precious),
        "dangling": lambda place: place.symlink_to(folder / "nowhere"),
        "second name": lambda place: os.link(precious, place),
        "folder": Path.mkdir,
        "pipe": os.mkfifo,
    }
    if os.geteuid() == 0:
        ways["another's"] = lambda place: (place.touch(), os.chown(place, 12345, -1))

    def attempt(name: str, way: str, begun: bool) -> str:
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        precious.write_bytes(b"precious")
        work = out / ".o.tif.geomoe"
        if begun:
            job(lambda: to_scale(src, out / "o.tif", progress=After(3, lambda: os._exit(9))))
        place = work / name if name else work
        if name:
            work.mkdir(exist_ok=True)
            place.unlink(missing_ok=True)
        ways[way](place)
        end, said = job(lambda: to_scale(src, out / "o.tif"))
        if precious.read_bytes() != b"precious" or (folder / "nowhere").exists():
            return "written through"
        placed = (out / "o.tif").exists()
        # A lock and a backup are not written to, and may have a second name: a backup is put back where
        # nothing stands. A folder of one's own is fine.
        harmless = name.startswith(("lock", "backup")) and way == "second name"
        if harmless or (not name and way == "folder"):
            return "" if end != "crashed" else said[-300:]
        return "" if end == "refused" and not placed and "\n" not in said else f"{end}: {said[-300:]}"

    for begun in (False, True):
        for name in WORK if begun else ("", *WORK):
            for way in ways:
                title = f"{way} {name or 'the folder'} {'in the middle' if begun else 'before'}"
                yield title, lambda name=name, way=way, begun=begun: attempt(name, way, begun)


def overlaps(folder: Path) -> Attempts:
    """Every file that is read, given as what to write."""
    made = folder / "made"
    _readable(made)
    up = ("upscale", "--scale", "2", "--device", "cpu", "--overwrite", "--model")
    commands: dict[str, tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]] = {
        "upscale": (lambda w: (*up, "w/m.tif", "a.tif", w), ("a.tif", "w/m.tif")),
        "an item": (lambda w: (*up, "w/m.safetensors", "item.json", w), ("red.tif",)),
        "evaluate": (
            lambda w: ("evaluate", "--scale", "2", "--model", "w/m.json", "--data", "images", "--json", w),
            ("images/x.png", "w/m.json"),
        ),
        "picture": (
            lambda w: (
                "picture",
                "images/x.png",
                "--scale",
                "2",
                "--model",
                "w/m.png",
                "--overwrite",
                "-o",
                w,
            ),
            ("images/x.png", "w/m.png"),
        ),
        "export": (
            lambda w: ("export", "w/m.safetensors", w, "--data", "images", "--overwrite"),
            ("w/m.safetensors",),
        ),
        "report": (
            lambda w: (*up, "w/m.csv", "--manifest", "m.csv", "--report", w),
            (
                "m.csv",
                "w/m.csv",
                "a.tif",
                "red.tif",
                "item.json",
                "p.SAFE/MTD_MSIL2A.xml",
                "p.SAFE/manifest.safe",
            ),
        ),
    }
    for layer in ("consistency", "experts", "reliability"):
        commands[layer] = (
            lambda w, layer=layer: (*up, "w/m.tif", "a.tif", "x.tif", f"--{layer}", w),
            ("a.tif", "w/m.tif"),
        )

    def attempt(command: str, read: str, way: str) -> str:
        here = folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(made, here)
        path = here / read
        target = path.with_name(f"other{path.suffix}") if way in ("link", "second name") else path
        if way == "link":
            target.symlink_to(path)
        elif way == "second name":
            os.link(path, target)
        elif way == "way":
            (here / "way").symlink_to(path.parent)
            target = here / "way" / path.name
        before = {p: sha(p) for p in here.rglob("*") if p.is_file()}

        def run() -> None:
            os.chdir(here)
            geomoe(commands[command][0](str(target)))

        end, said = job(run)
        after = {p: sha(p) for p in here.rglob("*") if p.is_file()}
        lines = said.strip().splitlines()
        right = (
            end == "refused" and lines and lines[-1].startswith("geomoe: error:") and "Traceback" not in said
        )
        return "" if right and after == before else f"{end} {sorted({*after} ^ {*before})} {said[-300:]}"

    for command, (_, reads) in commands.items():
        for read in reads:
            for way in ("itself", "link", "second name", "way"):
                yield (
                    f"{command} over {read} by {way}",
                    lambda command=command, read=read, way=way: attempt(command, read, way),
                )


def _readable(made: Path) -> None:
    """Scenes, weights under names of all kinds, images, and a manifest, in one folder."""
    import numpy as np
    from nights import _weights
    from PIL import Image

    for name in ("w", "images"):
        (made / name).mkdir(parents=True)
    _weights(made / "w" / "m.safetensors")
    for ending in ("tif", "png", "csv", "json"):
        shutil.copy(made / "w" / "m.safetensors", made / "w" / f"m.{ending}")
    write_scene(made / "a.tif", 40, 40)
    _item(made)
    write_safe(made / "p.SAFE")
    for name in ("x", "y"):
        noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(made / "images" / f"{name}.png")
    (made / "m.csv").write_text("src,dst\na.tif,x.tif\nitem.json,y.tif\np.SAFE,z.tif\n")


def _item(folder: Path) -> Path:
    write_scene(folder / "red.tif", 40, 40, bands=1)
    said = {
        "type": "Feature", "stac_version": "1.0.0", "id": "item", "geometry": None, "links": [],
        "properties": {"datetime": "2024-05-01T10:06:01Z"}, "assets": {"red": {"href": "./red.tif"}},
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(said))
    return folder / "item.json"


def changes(folder: Path) -> Attempts:
    """A scene that is written while it is read."""

    def flip(file: Path) -> None:
        times = file.stat()
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        with file.open("r+b") as opened:
            opened.write(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    def rewrite(file: Path) -> None:
        file.write_bytes(bytes(reversed(file.read_bytes())))

    def replace(file: Path) -> None:
        other = file.with_name("new")
        other.write_bytes(file.read_bytes() + b"\0")
        other.replace(file)

    def cut(file: Path) -> None:
        os.truncate(file, file.stat().st_size // 2)

    def attempt(kind: str, harm: Callable[[Path], object], tiles: int) -> str:
        here = folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        (here / "out").mkdir(parents=True)
        if kind == "tif":
            src = file = write_scene(here / "a.tif", 40, 40)
        elif kind == "item":
            src, file = _item(here), here / "red.tif"
        else:
            src = write_safe(here / "p.SAFE")
            file = next(src.rglob("*B04_10m.jp2"))
        out = here / "out" / "o.tif"
        end, said = job(lambda: to_scale(src, out, progress=After(tiles, lambda: harm(file))))
        placed = [path.name for path in out.parent.iterdir() if not path.name.endswith(".geomoe")]
        return (
            "" if end == "refused" and not placed and "\n" not in said else f"{end} {placed}: {said[-300:]}"
        )

    for kind in ("tif", "item", "safe"):
        for harm in (rewrite, replace, cut, flip, Path.unlink):
            for tiles in (1, 2, 3, 4) if kind == "safe" else (1, 4, 8, 9):
                yield (
                    f"{kind}: {harm.__name__} after tile {tiles}",
                    lambda kind=kind, harm=harm, tiles=tiles: attempt(kind, harm, tiles),
                )


_ASK = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[1])
from attack_files import After, to_scale
cut = {"progress": After(2, sys.exit)} if len(sys.argv) > 4 else {}
to_scale(Path(sys.argv[2]), Path(sys.argv[3]), tile=128, **cut)
"""


def environment(folder: Path) -> Attempts:
    """What the environment says, to GDAL and to what torch computes with."""
    src = write_scene(folder / "src.tif", 290, 280, nodata=0, tags={"AREA_OR_POINT": "Point"})

    def made(setting: str, *more: Path | str) -> str:
        name, value = setting.split("=")
        here = [sys.executable, "-c", _ASK, str(Path(__file__).parent), str(src), *map(str, more)]
        done = subprocess.run(
            here, env={**os.environ, name: value}, capture_output=True, text=True, check=False
        )
        return done.stderr[-300:]

    plain: list[str] = []

    def attempt(setting: str) -> str:
        if not plain:
            (folder / "plain").mkdir()
            made("LANG=C", folder / "plain" / "o.tif")
            plain.append(sha(folder / "plain" / "o.tif"))
        out = folder / setting.split("=")[0] / "o.tif"
        out.parent.mkdir(exist_ok=True)
        if setting in ARITHMETIC:
            made("LANG=C", out, "cut")
            made(setting, out)
            made(setting, whole := out.with_name("whole.tif"))
            return "" if sha(out) == sha(whole) else "tiles of two arithmetics in one file"
        said = made(setting, out)
        if not out.exists():
            return said
        return "" if sha(out) == plain[0] else "other bytes"

    numbers = ARITHMETIC if torch.backends.cpu.get_cpu_capability() != "DEFAULT" else ()
    for setting in (*SETTINGS, *numbers):
        yield setting, lambda setting=setting: attempt(setting)


def items(folder: Path) -> Attempts:
    """Each value of an item, changed and removed."""
    src = write_scene(folder / "src.tif", 40, 40, nodata=0)
    job(lambda: to_scale(src, folder / "out.tif", experts=folder / "map.tif"))

    def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        if place:
            yield place
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                yield from leaves(value[key], (*place, key))

    def changed(value: Any) -> Any:
        if isinstance(value, bool):
            return not value
        if isinstance(value, int | float):
            return value + 1
        return f"{value}x" if isinstance(value, str) else "x"

    def attempt(name: str, place: tuple[Any, ...], remove: bool) -> str:
        path = folder / f"{name}.stac.json"
        before = path.read_bytes()
        item = json.loads(before)
        other = deepcopy(item)
        inside = other
        for key in place[:-1]:
            inside = inside[key]
        if remove:
            del inside[place[-1]]
        else:
            inside[place[-1]] = changed(inside[place[-1]])
        path.write_text(json.dumps(other))
        try:
            return "" if verify(folder / f"{name}.tif").faults else "overlooked"
        except GeomoeError:
            return ""
        finally:
            path.write_bytes(before)

    for name in ("out", "map"):
        for place in leaves(json.loads((folder / f"{name}.stac.json").read_bytes())):
            for remove in (False, True):
                # A link more or less to a file that is there harms nobody; all but the model's may go.
                if remove and place[0] == "links" and len(place) == 2:
                    continue
                title = f"{name} {'/'.join(map(str, place))} {'removed' if remove else 'changed'}"
                yield title, lambda name=name, place=place, remove=remove: attempt(name, place, remove)


def beside(folder: Path) -> Attempts:
    """Files that other tools would read with an output: found by verify, and refused before the work."""
    src = write_scene(folder / "src.tif", 40, 40)
    job(lambda: to_scale(src, folder / "out.tif"))

    def attempt(ending: str, finished: bool) -> str:
        file = folder / f"{'out' if finished else 'new'}{ending}"
        file.touch()
        try:
            if not finished:
                end, said = job(lambda: to_scale(src, folder / "new.tif"))
                return "" if end == "refused" and file.name in said else f"{end}: {said[-300:]}"
            return "" if verify(folder / "out.tif").faults else "overlooked"
        except GeomoeError:
            return ""
        finally:
            file.unlink()

    for ending in ENDINGS:
        for finished in (False, True):
            yield ending, lambda ending=ending, finished=finished: attempt(ending, finished)


def twins(folder: Path) -> Attempts:
    """Two outputs at once that share an item: what is there at the end is as its item says."""
    src = write_scene(folder / "src.tif", 40, 40)

    def attempt(other: str) -> str:
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        children = [
            fork(lambda name=name: to_scale(src, out / name, overwrite=True)) for name in ("o.tif", other)
        ]
        done = sum(os.waitpid(child, 0)[1] == 0 for child in children)
        there = [path for path in out.iterdir() if path.suffix.lower() in (".tif", ".tiff")]
        if len(there) != done or done > 1:
            return f"{done} done, {len(there)} there"
        return "; ".join(fault for path in there for fault in verify(path).faults)

    for other in ("o.tiff", "o.TIF", "o.Tif", "o.TIFF"):
        for number in range(3):
            yield f"{other} {number}", lambda other=other: attempt(other)


def writes(folder: Path) -> Attempts:
    """A file that is written anew, cut before each step."""

    def cut(path: Path, step: int, name: str) -> None:
        real = getattr(os, name)
        calls = 0

        def last(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > step:
                os._exit(9)
            return real(*args, **options)

        setattr(os, name, last)
        with atomic_write(path) as file:
            file.write(b"new" * 100_000)

    def attempt(name: str, step: int, old: bool) -> str:
        path = folder / "here" / "file"
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        if old:
            path.write_bytes(b"old")
        job(lambda: cut(path, step, name))
        found = path.read_bytes() if path.exists() else None
        if found not in (b"old" if old else None, b"new" * 100_000):
            return "not whole"
        with atomic_write(path) as file:
            file.write(b"again")
        return "" if path.read_bytes() == b"again" else "not written again"

    for name in STEPS:
        for step in range(3):
            for old in (False, True):
                yield f"{name} {step}", lambda name=name, step=step, old=old: attempt(name, step, old)


KINDS: dict[str, Callable[[Path], Attempts]] = {
    "writes": writes, "links": links, "overlaps": overlaps, "changes": changes, "twins": twins,
    "beside": beside, "environment": environment, "items": items,
}  # fmt: skip


if __name__ == "__main__":
    main()
