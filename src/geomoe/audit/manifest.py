"""The manifest of an audit: what has to be known to do it again, and to judge it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
import torch
from torch import nn

from geomoe import __version__
from geomoe.audit.subject import Subject
from geomoe.data.sample import Sample
from geomoe.evaluation.hardware import hardware
from geomoe.files import read_small
from geomoe.models.weights import load
from geomoe.moe.routing.router import AnyRouter
from geomoe.tasks.commit import commit

if TYPE_CHECKING:
    from geomoe.audit.request import Request

__all__ = ["LARGEST", "file_hash", "hashes", "machine", "manifest_of", "software"]

LARGEST = 256 * 2**20
"""Bytes of a file that is read whole: a report's, a table of scores."""


def manifest_of(request: Request, subject: Subject) -> dict[str, Any]:
    """What a request was carried out on, and with.

    Every sample is read once, for its hash: of its name and of the values that a model and its metrics are
    given, so that a file that was rewritten without loss is the same sample.
    """
    model, named = subject.model, subject.samples
    card, samples = model.card, hashes(subject)
    tiling = model.contract.tiling
    return {
        "command": request.command(),
        "date": datetime.now(UTC).date().isoformat(),
        "request": asdict(request),
        "weights": {
            "name": model.name,
            "hash": model.hash,
            "compared with": [load(other).hash for other in request.against],
            "model": card.model,
            "task": card.task,
            "commit of training": card.commit,
            "date": card.date,
            "licence": card.licence,
        },
        "benchmark": None
        if request.benchmark is None
        else {"file": request.benchmark, "sha256": file_hash(request.benchmark)},
        "routers": {
            name: _router(module)
            for name, module in model.model.named_modules()
            if isinstance(module, AnyRouter)
        },
        "configuration": card.config,
        "data": {
            "name": named.data,
            "split": request.split,
            "samples": len(samples),
            "hash": _digest(f"{name} {of}" for name, of in samples.items()),
            "sensor": named.sensor,
            "ground sampling distance in metres": named.gsd,
            "crs": _systems(Path(request.data), samples),
            "trained on": card.data.get("source"),
        },
        "tiling": {
            "samples": "whole",
            "scenes": "whole"
            if tiling is None
            else f"tiles of {tiling.tile} pixels, overlap {2 * tiling.margin}",
        },
        "normalisation": {
            "radiometry": card.radiometry,
            "mean": card.config.get("mean"),
            "standard deviation": card.config.get("std"),
        },
        "training": {name: value for name, value in card.recipe.items() if name != "start"},
        "seeds": {
            "audit": subject.seed,
            "training": card.recipe.get("seed"),
            "split": card.recipe.get("split_seed"),
        },
        "software": software(),
        "machine": machine(),
        "samples": samples,
    }  # fmt: skip


def software() -> dict[str, str]:
    """Versions of what computes."""
    found = {"geomoe": __version__, "commit": commit(), "python": platform.python_version()}
    return found | {name: version(name) for name in ("torch", "numpy", "scipy", "matplotlib")}


def machine() -> dict[str, Any]:
    """What it computes on."""
    return {"hardware": hardware(), "system": platform.platform(), "threads": torch.get_num_threads()}


def file_hash(path: str | None) -> str:
    """SHA-256 of a file that is not large; raises GeomoeError where it cannot be read."""
    return hashlib.sha256(read_small(path or "", LARGEST)).hexdigest()


def hashes(subject: Subject) -> dict[str, str]:
    """Of each sample, by name: the first 16 digits of the SHA-256 of its tensors and facts."""
    return {
        name: _digest([*_parts(sample), *map(str, sorted(subject.facts.get(name, {}).items()))])[:16]
        for name, sample in subject.samples.samples
    }


def _parts(sample: Sample) -> Iterator[str | bytes]:
    for key, value in sorted(sample.items()):
        yield f"{key} {value.dtype} {tuple(value.shape)}"
        yield value.contiguous().numpy().tobytes()


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "backslashreplace") + b"\n" if isinstance(part, str) else part)
    return digest.hexdigest()


def _systems(root: Path, names: Iterable[str]) -> list[str]:
    """Coordinate reference systems of the samples that are GeoTIFFs."""
    found = set()
    for path in (root / name for name in names):
        if path.suffix.lower() in (".tif", ".tiff") and path.is_file():
            with suppress(rasterio.errors.RasterioError), rasterio.open(path) as source:
                found.add(source.crs.to_string() if source.crs else "none")
    return sorted(found)


def _router(router: AnyRouter) -> str:
    """Its parts, in the order in which they work."""
    parts = [f"{name} {said}" for name, part in router.named_children() if (said := _said(part))]
    capacity = getattr(router, "capacity", None)
    if capacity is not None and not isinstance(capacity, nn.Module):
        parts.append(f"capacity {capacity}")
    return f"{router.num_experts} experts; {'; '.join(parts)}"


def _said(part: nn.Module) -> str:
    if isinstance(part, nn.ModuleList):
        return ", ".join(map(_said, part))
    options = part.extra_repr()
    return f"{type(part).__name__}({options})" if options else type(part).__name__
