"""One scene of many, in whatever process it is done."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.lock import BusyError, is_held
from geomoe.models import LoadedModel, load
from geomoe.pipeline.batch.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.choice import AUTO, digest, offered
from geomoe.pipeline.job import is_made
from geomoe.pipeline.layers.reliability import Judge
from geomoe.pipeline.progress import Progress
from geomoe.pipeline.request import Request
from geomoe.pipeline.run import carry_out
from geomoe.pipeline.runner import Upscaler
from geomoe.raster.sample import EmptyError
from geomoe.raster.target import Target, work_folder

__all__ = ["do_scene", "failed", "is_done", "model_of", "pinned", "request_of", "tidy"]


@lru_cache(maxsize=1)
def _loaded(name: str, scale: int, weights: str, reference: str) -> LoadedModel:
    model = load(name, scale)
    if weights not in ("", model.hash):
        raise GeomoeError(
            f"{name} has other weights here ({model.hash[:12]}) than were asked for ({weights[:12]})"
        )
    if reference != "" and (model.reference is None or model.reference.digest() != reference):
        raise GeomoeError(f"{name} has another routing reference here than was asked for")
    return model


def pinned(settings: Settings, *, judged: bool) -> Settings:
    """The settings with what `model_of` compares, wherever the scenes are done.

    Args:
        settings: of all scenes.
        judged: whether it is asked of any of them how the model routes.

    Raises:
        GeomoeError: weights that are not there, or that cannot be judged.
    """
    if settings.model == AUTO:
        for path, _ in offered(settings.scale).values() if judged else ():
            Judge(load(str(path)))
        return replace(settings, weights=digest(settings.scale))
    model = load(settings.model, settings.scale)
    if settings.model.endswith(".safetensors"):  # workers may have been started in another folder
        settings = replace(settings, model=os.path.abspath(settings.model))
    return replace(settings, weights=model.hash, reference=Judge(model).reference.digest() if judged else "")


def model_of(settings: Settings) -> str | Upscaler:
    """What requests have for their model: the one for all scenes, or that each gets its own.

    Raises:
        GeomoeError: where it is not what was asked for.
    """
    if settings.model != AUTO:
        return _loaded(settings.model, settings.scale, settings.weights, settings.reference)
    if settings.weights not in ("", digest(settings.scale)):
        raise GeomoeError("other weights ship with geomoe here than where the scenes were asked for")
    return AUTO


def request_of(task: SceneTask, settings: Settings, model: str | Upscaler) -> Request:
    """A line of a manifest, with what is the same for all of them."""
    return Request(
        task.src, task.dst, bands=task.bands, nodata=settings.nodata, scale=settings.scale,
        tile=settings.tile, model=model, device=settings.device, precision=settings.precision,
        memory=settings.memory, overwrite=settings.overwrite, experts=task.experts,
        consistency=task.consistency, reliability=task.reliability, fallback=settings.fallback,
        conserve=settings.conserve,
    )  # fmt: skip


def is_done(request: Request) -> bool:
    """Whether everything that is asked for was made before, and no work was left."""
    # Where work was left, the job itself knows best how far it is.
    return not any(folder.exists() for folder in _folders(request)) and is_made(request)


def _outputs(of: Request | SceneTask) -> list[Path]:
    """Where everything goes, through symbolic links, as `Target` writes."""
    paths = (of.dst, of.experts, of.consistency, of.reliability)
    return [Path(os.path.realpath(path)) for path in paths if path is not None]


def _folders(of: Request | SceneTask) -> list[Path]:
    """Where the work on each output is kept."""
    return [work_folder(path) for path in _outputs(of)]


def do_scene(task: SceneTask, settings: Settings, progress: Progress | None = None) -> Outcome:
    """Super-resolve a scene unless it was done before; an error is an outcome."""
    began = time.monotonic()
    try:
        outcome = _try(task, settings, progress)
    except BusyError as error:
        outcome = replace(failed(task, error), status="busy", sign=_sign(task))
    except Exception as error:  # a mistake of ours must not end the night either
        outcome = failed(task, error)
    return replace(outcome, seconds=time.monotonic() - began)


def _try(task: SceneTask, settings: Settings, progress: Progress | None) -> Outcome:
    request = request_of(task, settings, model_of(settings))
    if any(is_held(folder) for folder in _folders(task)):  # before all of the scene is read for nothing
        raise BusyError(f"another process is writing {task.dst}")
    if is_done(request):
        return Outcome(task, "there")
    try:
        report = carry_out(request, progress)
        return Outcome(task, "done", resumed=report.resumed, message="; ".join(report.plan.notes))
    except BusyError:
        raise
    except GeomoeError:
        if is_done(request):  # by another process, between our look and our work
            return Outcome(task, "there")
        raise


def failed(task: SceneTask, error: Exception) -> Outcome:
    """A scene that could not be made, and why in one line; there is nothing to be made of an empty one."""
    message = " ".join("; ".join([str(error), *getattr(error, "__notes__", [])]).split())
    if not isinstance(error, GeomoeError):
        message = f"{type(error).__name__}: {message}"
    return Outcome(task, "empty" if isinstance(error, EmptyError) else "failed", message=message)


def tidy(task: SceneTask) -> None:
    """Remove the work that a process which was killed left of a scene, if no tile of it is done."""
    with suppress(OSError, GeomoeError):
        targets = [Target(path, overwrite=True) for path in _outputs(task)]
        first = targets[0].folder
        journal = first / "journal"
        if (first / "commit").exists() or (journal.exists() and journal.read_bytes().strip()):
            return
        for target in targets:
            if target.folder.exists():
                with target.held():
                    target.clean()


def _sign(task: SceneTask) -> int:
    """What changes as long as a process works on a scene."""
    total = 0
    for folder in _folders(task):
        with suppress(OSError), os.scandir(folder) as entries:
            total += sum(entry.stat(follow_symlinks=False).st_mtime_ns for entry in entries)
    return total
