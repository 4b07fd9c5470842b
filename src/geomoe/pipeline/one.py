"""One scene of many, in whatever process it is done."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.lock import BusyError
from geomoe.models import LoadedModel, load
from geomoe.pipeline.job import is_made
from geomoe.pipeline.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.request import Request
from geomoe.pipeline.runner import Upscaler
from geomoe.pipeline.upscale import carry_out

__all__ = ["do_scene", "failed", "is_done", "request_of"]


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


def request_of(task: SceneTask, settings: Settings, model: Upscaler) -> Request:
    """A line of a manifest, with what is the same for all of them."""
    return Request(
        task.src, task.dst, bands=task.bands, scale=settings.scale, tile=settings.tile, model=model,
        device=settings.device, memory=settings.memory, overwrite=settings.overwrite,
        experts=task.experts, consistency=task.consistency, reliability=task.reliability,
        fallback=settings.fallback,
    )  # fmt: skip


def is_done(request: Request) -> bool:
    """Whether everything that is asked for was made before, and no work was left."""
    # Where work was left, the job itself knows best how far it is.
    paths = (Path(os.path.realpath(path)) for path in (request.dst, *request.layers.values()))
    left = any(path.with_name(f".{path.name}.geomoe").exists() for path in paths)
    return not left and is_made(request)


def do_scene(task: SceneTask, settings: Settings) -> Outcome:
    """Super-resolve a scene unless it was done before; an error is an outcome."""
    began = time.monotonic()
    try:
        model = _loaded(settings.model, settings.scale, settings.weights, settings.reference)
        request = request_of(task, settings, model)
        if is_done(request):
            outcome = Outcome(task, "there")
        else:
            outcome = Outcome(task, "done", resumed=carry_out(request).resumed)
    except BusyError as error:
        outcome = replace(failed(task, error), status="busy")
    except Exception as error:  # a mistake of ours must not end the night either
        outcome = failed(task, error)
    return replace(outcome, seconds=time.monotonic() - began)


def failed(task: SceneTask, error: Exception) -> Outcome:
    """A scene that could not be made, and why in one line."""
    message = " ".join("; ".join([str(error), *getattr(error, "__notes__", [])]).split())
    if not isinstance(error, GeomoeError):
        message = f"{type(error).__name__}: {message}"
    return Outcome(task, "failed", message=message)
