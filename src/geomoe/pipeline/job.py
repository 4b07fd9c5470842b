"""One scene, one model and where the result goes: what every tile needs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import torch

from geomoe.errors import GeomoeError
from geomoe.models.precision import Precision
from geomoe.models.reference import RoutingReference
from geomoe.pipeline.choice import for_model, remarks
from geomoe.pipeline.facts import as_object
from geomoe.pipeline.history import IMAGE, geomoe_version, seal
from geomoe.pipeline.layers import make_layers
from geomoe.pipeline.layers.base import Layer
from geomoe.pipeline.layers.reliability import reference_of
from geomoe.pipeline.output import Output, begun_in
from geomoe.pipeline.plan import (
    Prepared,
    ScenePlan,
    metadata_of,
    model_for,
    notes_of,
    prepared,
    tiles_of,
)
from geomoe.pipeline.request import Request
from geomoe.pipeline.runner import (
    Predictor,
    Runner,
    hardware,
    is_measured,
    options_of,
    radiometry_of,
    takes_values,
    tiling_of,
)
from geomoe.pipeline.tiles import Tiles, tile_side
from geomoe.pipeline.writers import writer_of
from geomoe.pipeline.writers.base import Writer
from geomoe.raster.formats.watch import ChangedError, Watch, contents
from geomoe.raster.read.known import KnownScene, known_of
from geomoe.raster.read.radiometry import AS_THEY_ARE, Radiometry
from geomoe.raster.read.sample import look
from geomoe.raster.read.scene import Scene, open_file
from geomoe.raster.stac.item import json_number, read_item
from geomoe.raster.write.metadata import CogMetadata
from geomoe.raster.write.target import Target, item_path

__all__ = ["Job", "is_made", "open_job"]


@dataclass(frozen=True)
class Job:
    """Everything that a tile needs; a tile changes nothing.

    Attributes:
        known: of the scene.
        remarks: on the weights; see :func:`geomoe.pipeline.choice.remarks`.
        writer: of the first of ``outputs``.
        layers: what is made beside it, in the order of the others.
        reference: what the model's router saw in training, where somebody asked how it routes.
        valid_share: share of sampled input pixels that are valid, 0 to 1.
        digest: SHA-256 of the scene's file.
        sources: name and SHA-256 of each of its files.
    """

    request: Request
    scene: Scene
    watch: Watch
    plan: ScenePlan
    tiles: Tiles
    runner: Runner
    model: Predictor
    radiometry: Radiometry
    known: KnownScene
    remarks: tuple[str, ...]
    writer: Writer
    layers: tuple[Layer, ...]
    outputs: tuple[Output, ...]
    reference: RoutingReference | None
    valid_share: float
    digest: str
    sources: tuple[Mapping[str, str], ...]

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the pixels depend on: a job with another key is another job."""
        return {
            "scene": self.digest,
            "bands": self.plan.bands,
            "nodata": {
                "said": _said(self.request.nodata),
                "value": None if self.scene.nodata is None else json_number(self.scene.nodata),
                "by": self.scene.nodata_by,
            },
            "radiometry": self.radiometry.describe(),
            "weights": self.model.hash,
            "model": self.model.name,
            # Of options that no tensor tells, such as how a border is cut, the weights know nothing.
            "options": options_of(self.model),
            "contract": self.model.contract.record(),
            **({"known": asdict(for_model(self.known))} if self.model.contract.informed else {}),
            "tile": self.plan.tile,
            "margin": self.tiles.margin,
            **_blending(self.tiles),
            "outputs": [str(output.target.path) for output in self.outputs],
            "kind": self.writer.name,
            "layers": [layer.name for layer in self.layers],
            "fallback": self.request.fallback,
            "conserve": self.request.conserve,
            "reliability": self.reference.digest() if self.reference else None,
            "version": geomoe_version(),
            # Another build of torch or another processor may round otherwise; what else does, is found out
            # when the job is resumed.
            "torch": torch.__version__,
            "precision": self.runner.precision,
            "device": self.runner.hardware,
        }

    def check_scene(self, *, whole: bool = False) -> None:
        """Raise ChangedError if the scene is not as it was, by its content if ``whole`` or in doubt."""
        doubtful = self.watch.changed()
        if (doubtful or whole) and contents(self.scene) != (self.digest, self.sources):
            raise ChangedError(doubtful or [self.scene.path])


@contextmanager
def open_job(request: Request) -> Iterator[Job]:
    """A job that can be done, with its scene open.

    Raises:
        GeomoeError: for bad input, or a job that cannot be done.
    """
    watch = Watch(*request.sources)
    with prepared(request) as found:
        model, plan = found.model, found.plan
        scene, radiometry, valid_share, known, lacking = _look(found)
        digest, sources = contents(scene)
        if changed := watch.changed():  # what was read of it until now may be of another state
            raise ChangedError(changed)
        precision = plan.precision
        if request.precision == "auto":
            precision = _begun(found, digest) or precision
        missing = [f"{name} is missing: a band of it has no valid pixel" for name in lacking]
        said = (*remarks(scene.dtype, known, model, found.why), *missing)
        notes = (*notes_of(scene, plan.bands, found.writer, precision, found.device), *said)
        plan = replace(plan, notes=notes, precision=precision)
        metas = metadata_of(scene, plan.bands, found.writer, found.layers)
        outputs = _outputs(found.targets, metas, found.writer, found.layers, _tags(model, lacking))
        yield Job(
            request=request,
            scene=scene,
            watch=watch,
            plan=plan,
            tiles=tiles_of(scene, found.writer, found.tiling, request.tile),
            runner=Runner(model, found.device, precision, for_model(known)),
            model=model,
            radiometry=radiometry,
            known=known,
            remarks=said,
            writer=found.writer,
            layers=found.layers,
            outputs=outputs,
            reference=found.reference,
            valid_share=valid_share,
            digest=digest,
            sources=sources,
        )


def _outputs(
    targets: Sequence[Target],
    metas: Sequence[CogMetadata],
    writer: Writer,
    layers: Sequence[Layer],
    tags: Mapping[str, str],
) -> tuple[Output, ...]:
    """The first file and the maps, each with the tag of what it is beside those of all."""
    scales = (writer.scale, *(1 for _ in layers))
    makers: tuple[Writer | Layer, ...] = (writer, *layers)
    return tuple(
        Output(
            target,
            replace(meta, tags={**meta.tags, **tags, "GEOMOE_LAYER": of.name}),
            scale,
            partial(_legend, of),
        )
        for target, meta, of, scale in zip(targets, metas, makers, scales, strict=True)
    )


def _legend(of: Writer | Layer) -> dict[str, str]:
    legend = of.legend()
    return {"GEOMOE_LEGEND": json.dumps(legend, sort_keys=True)} if legend else {}


def _look(found: Prepared) -> tuple[Scene, Radiometry, float, KnownScene, tuple[str, ...]]:
    """The scene with its fill, radiometry, share of valid pixels, noise, and the sensors that it lacks.

    The sample ends with the call.
    """
    bands = found.plan.bands
    scene, sample = look(found.scene, bands)
    lacking = found.writer.lacking(scene, [values.size > 0 for values in sample.values])
    radiometry = radiometry_of(found.model, scene, sample)
    return scene, radiometry, sample.valid_share, found.known.with_noise(sample, radiometry), lacking


def _begun(found: Prepared, digest: str) -> Precision | None:
    """The precision of the job that was begun, by its key, if that has this scene and such a machine."""
    key = begun_in(found.targets[0].folder)
    same = {
        "scene": digest,
        "weights": found.model.hash,
        "torch": torch.__version__,
        "device": hardware(found.device),
    }
    precision = key.get("precision")
    alike = same.items() <= key.items() and precision in get_args(Precision)
    return cast(Precision, precision) if alike else None


def is_made(request: Request) -> bool:
    """Whether all files of a request were made from its scene, as it is, with its settings, by their records.

    A file without its item was made by nobody. Where ``auto`` is asked for, either precision that it may mean
    will do: machines of several kinds that share a manifest do not undo each other's work.

    Raises:
        GeomoeError: as `open_job` for a scene or model that cannot be used.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, path in {"": request.dst, **request.layers}.items():
        real = Path(os.path.realpath(path))  # as `Target` writes through a symbolic link
        try:
            item = read_item(item_path(real))
            record = as_object(item["properties"].get("geomoe:configuration"))
            tags = {"GEOMOE_LAYER": name or record.get("kind", IMAGE), "GEOMOE_ITEM": seal(item)}
            with open_file(real) as made:
                if not tags.items() <= made.tags.items():
                    return False
        except GeomoeError:
            return False
        found[name] = _by_request(record)
    with request.open() as scene:
        known = known_of(scene)
        model, _ = model_for(request.model, request.scale, known)
        tiles = tiles_of(scene, writer_of(model), tiling_of(model), request.tile)
        wanted = {
            "scene": scene.digest(),
            "bands": writer_of(model).bands(scene, request.bands),
            "nodata": {"said": _said(request.nodata)},
            "radiometry": {"rule": AS_THEY_ARE if takes_values(model) else None},
            "weights": model.hash,
            "contract": model.contract.record(),
            **({"known": asdict(for_model(known))} if model.contract.informed else {}),
            "tile": tile_side(tiling_of(model), request.tile),
            **_blending(tiles),
            "fallback": request.fallback,
            "conserve": request.conserve,
            **({"reliability": reference_of(model).digest()} if request.fallback else {}),
        }
    wanted = _by_request(json.loads(json.dumps(wanted)))
    asked: set[str | None] = {request.precision}
    if request.precision == "auto":
        asked = {"float32", "bfloat16"} if is_measured(model) else {"float32"}
    precisions = {record.get("precision") for record in found.values()}
    alike = len(precisions) == 1 and precisions <= asked
    own = {"": {}, **{layer.name: layer.record for layer in make_layers(request, model)}}
    options = options_of(model) or {}
    return alike and all(
        {**wanted, **own[name]}.items() <= record.items()
        # Which no tensor tells, such as the mean of a band; an earlier geomoe had fewer.
        and as_object(record.get("options")).items() <= options.items()
        for name, record in found.items()
    )


def _by_request(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what only the pixels of a scene say: noise, what became of nodata, percentiles."""
    known = {fact: value for fact, value in as_object(record.get("known")).items() if fact != "noise"}
    return {
        **record,
        "known": known,
        "nodata": as_object(record.get("nodata")).get("said"),
        "radiometry": as_object(record.get("radiometry")).get("rule") == AS_THEY_ARE,
    }


def _blending(tiles: Tiles) -> dict[str, int]:
    return {"blend": tiles.overlap} if tiles.overlap else {}


def _said(nodata: float | str | None) -> float | str | None:
    return json_number(nodata) if isinstance(nodata, float) else nodata


def _tags(model: Predictor, lacking: Sequence[str]) -> Mapping[str, str]:
    """What a file says without its item. No time and no path: the same input gives the same bytes."""
    version = geomoe_version()
    return {
        "GEOMOE_VERSION": version,
        "GEOMOE_MODEL": model.name,
        "GEOMOE_WEIGHTS": model.hash,
        "TIFFTAG_SOFTWARE": f"geomoe {version}",
        **({"GEOMOE_MISSING_SENSORS": ", ".join(lacking)} if lacking else {}),
    }
