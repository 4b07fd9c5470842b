"""Mutated inputs: each ends in our one error or in a right result.

    python benchmarks/reliability/fuzz.py [--inputs 10000] [--seed 0] [--json]

Files are made in seven ways a GeoTIFF can be stored, as JPEG 2000, as the zip, the metadata and the manifest
of a Sentinel-2 product, as a STAC item, and as weights with their card; each input is one of them with some
bytes changed, cut out, put in or doubled, most of them in the header, or some letters and digits. Scenes are
opened, described and read whole; some are upscaled by a tiny model, and what came of it is read back. Workers
are processes whose memory is capped; what is counted is what is left of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from common import fork, tiny, write_scene
from rasterio.windows import Window

from geomoe import GeomoeError, create_model, load
from geomoe.models.weights import Card, save
from geomoe.pipeline import describe_scene, upscale
from geomoe.raster import open_scene
from products import write_item, write_safe, zipped

CAP = 3 * 2**30
"""Bytes of address space above what a worker has when it begins."""
SECONDS = 20
"""For one input, of which most take some milliseconds."""
CODECS: dict[str, dict[str, object]] = {
    "raw": {},
    "deflate": {"compress": "deflate", "predictor": 2},
    "lzw": {"compress": "lzw", "predictor": 2},
    "packbits": {"compress": "packbits"},
    "zstd": {"compress": "zstd"},
    "lzma": {"compress": "lzma"},
    "jpeg": {"compress": "jpeg", "dtype": "uint8"},
}


def main() -> None:
    """Parse the arguments, run the workers, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    began = time.monotonic()
    totals: Counter[str] = Counter(crashes=0, hangs=0, other_errors=0, wrong=0)
    with tempfile.TemporaryDirectory() as name:
        seeds = make_seeds(Path(name))
        done = 0
        while done < args.inputs:
            child = fork(lambda first=done: work(Path(name), seeds, first, args.inputs, args.seed))  # type: ignore[misc]
            status = watch(child, Path(name) / "at")
            for line in (Path(name) / "log").read_text().splitlines():
                done += 1
                totals[line.split(":")[0]] += 1
                if line.startswith(("other_errors", "wrong")):
                    print(line, file=sys.stderr)
            (Path(name) / "log").unlink()
            if done < args.inputs:
                totals["hangs" if status == -signal.SIGALRM else "crashes"] += 1
                print(f"input {done}: worker ended with {status}", file=sys.stderr)
                done += 1
    found = {"inputs": args.inputs, **totals, "seconds": round(time.monotonic() - began)}
    print(json.dumps(found) if args.json else found)
    if totals["crashes"] + totals["hangs"] + totals["other_errors"] + totals["wrong"]:
        raise SystemExit(1)


def make_seeds(folder: Path) -> list[Path]:
    """Files to be mutated."""
    seeds = []
    for number, (name, options) in enumerate(CODECS.items()):
        path = folder / f"{name}.tif"
        write_scene(path, 40, 33, **{"dtype": ("uint8", "uint16", "int16")[number % 3], **options})  # type: ignore[arg-type]
        seeds.append(path)
    path = folder / "float.tif"
    write_scene(path, 40, 33, dtype="float32", nodata=-1)
    seeds.append(path)
    with rasterio.open(folder / "raw.tif") as scene, rasterio.open(
        folder / "plain.jp2", "w", driver="JP2OpenJPEG", width=scene.width, height=scene.height,
        count=scene.count, dtype="uint8", crs=scene.crs, transform=scene.transform, QUALITY=100,
        REVERSIBLE="YES",
    ) as file:  # fmt: skip
        file.write(scene.read().astype(np.uint8))
    seeds.append(folder / "plain.jp2")
    product = write_safe(folder / "product.SAFE")
    seeds += [zipped(product, folder / "product.zip"), product / "MTD_MSIL2A.xml", product / "manifest.safe"]
    for ending in ("xml", "safe"):
        write_safe(folder / f"mutated_{ending}")
    seeds.append(write_item(folder / "item.json", "raw.tif", "packbits.tif", "raw.tif"))
    torch.manual_seed(0)
    model = create_model("edsr", scale=2, width=4, blocks=1)
    card = Card("edsr", {}, "unit", {"source": "made"}, "bilinear", {}, "mfg_hmoe", {}, "", "", "CC0-1.0")
    save(folder / "tiny.safetensors", model, replace(card, config=asdict(model.config)))  # type: ignore[call-overload]
    return [*seeds, folder / "tiny.safetensors"]


def mutated_place(folder: Path, seed: Path) -> Path:
    """Where a mutated copy goes: metadata into a product whose other files are as they were."""
    if seed.parent == folder:
        return folder / f"mutated{seed.suffix}"
    return folder / f"mutated_{seed.suffix[1:]}" / seed.name


def mutate_text(data: bytes, rng: np.random.Generator) -> bytes:
    """Some letters and digits changed, so that what is written in them stays well-formed more often."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        places = [i for i in rng.integers(0, len(changed), 20) if chr(changed[i]).isalnum()]
        for place in places[:1]:
            changed[place] = int(rng.choice([*b"019eEaZ-._/ "]))
    return bytes(changed)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut out, put in or doubled; in the first and last kilobyte more than elsewhere."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        size = len(changed)
        if size < 2:
            break
        where = int(rng.integers(size))
        if rng.random() < 0.7:
            where = int(rng.integers(min(size, 1024)))
            where = where if rng.random() < 0.7 else size - 1 - where
        kind, length = rng.random(), int(rng.integers(1, 9))
        if kind < 0.6:
            changed[where] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
        elif kind < 0.7:
            changed[where : where + 4] = int(rng.integers(2**32)).to_bytes(4, "little")
        elif kind < 0.8:
            del changed[where : where + length]
        elif kind < 0.9:
            changed[where:where] = rng.bytes(length)
        elif kind < 0.95:
            changed[where:where] = changed[where : where + 64]
        else:
            del changed[where:]
    return bytes(changed)


def work(folder: Path, seeds: Sequence[Path], first: int, last: int, seed: int) -> None:
    """Try inputs one after another, noting each; a worker that dies is followed by another."""
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    model = tiny(2, 16)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + CAP, taken + CAP))
    with (folder / "log").open("a", buffering=1) as log:
        for number in range(first, last):
            rng = np.random.default_rng((seed, number))
            source = seeds[int(rng.integers(len(seeds)))]
            path = mutated_place(folder, source)
            text = source.suffix in (".xml", ".safe", ".json") and rng.random() < 0.7
            path.write_bytes((mutate_text if text else mutate)(source.read_bytes(), rng))
            (folder / "at").write_text(str(number))
            try:
                outcome = attempt(path, model, whole=bool(rng.random() < 0.1))
            except GeomoeError as error:
                outcome = "errors" if "\n" not in str(error) else f"wrong: a message of many lines, {error!r}"
            except MemoryError:
                outcome = f"other_errors: input {number}, {source.name}: MemoryError"
            except Exception as error:
                outcome = f"other_errors: input {number}, {source.name}: {type(error).__name__} {error}"
            log.write(" ".join(outcome.split()) + "\n")


def attempt(path: Path, model: object, *, whole: bool) -> str:
    """Use a mutated file as it would be used."""
    if path.suffix == ".safetensors":
        loaded = load(str(path), 2)
        with torch.inference_mode():
            good = tuple(loaded.model(torch.zeros(1, 3, 8, 8)).shape) == (1, 3, 16, 16)
        return "results" if good else "wrong: another shape"
    path = path.parent if path.suffix == ".safe" else path
    describe_scene(path)
    with open_scene(path) as scene:
        scene.digest()
        if scene.width * scene.height > 10**6:
            return "results"
        data, valid = scene.read(Window(0, 0, scene.width, scene.height), scene.data_bands[:3])
        if data.shape != valid.shape:
            return "wrong: pixels and validity of different shapes"
        size = (scene.width, scene.height)
    if whole and max(size) < 200:
        target = path.with_name("mutated_out.tif")
        upscale(path, target, model=model, scale=2, bands=[1], overwrite=True)  # type: ignore[arg-type]
        with rasterio.open(target) as out:
            if (out.width, out.height) != (2 * size[0], 2 * size[1]):
                return "wrong: another size"
            out.read()
    return "results"


def watch(child: int, at: Path) -> int:
    """Wait for a worker, which is ended if it is at one input for too long; gives its status."""
    last, since = "", time.monotonic()
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        now = at.read_text() if at.exists() else ""
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > SECONDS:
            os.kill(child, signal.SIGALRM)
        time.sleep(0.05)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
