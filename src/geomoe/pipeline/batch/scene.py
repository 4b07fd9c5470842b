"""One scene of many, in whatever process it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.lock import BusyError, is_held
from geomoe.models import LoadedModel, load
from geomoe.pipeline.batch.report import Outcome
from geomoe.pipeline.choice import digest, offered
from geomoe.pipeline.job import is_made
from geomoe.pipeline.plan import asked_of
from geomoe.pipeline.progress import Progress
from geomoe.pipeline.request import AUTO, Request
from geomoe.pipeline.run import carry_out
from geomoe.raster.read.sample import EmptyError
from geomoe.raster.write.target import Target, work_folder

__all__ = ["do_scene", "failed", "is_done", "pinned", "ready", "tidy"]


@lru_cache(maxsize=1)
def _loaded(name: str, scale: int | None) -> LoadedModel:
    return load(name, scale)


def _pin(request: Request) -> str:
    """What weights of the same name must have in common wherever a scene is done."""
    if request.model == AUTO and request.scale is not None:
        return digest(request.scale)
    if not isinstance(request.model, str):
        raise GeomoeError("of many scenes, the model is given by the name of a model or a weights file")
    model = _loaded(request.model, request.scale)
    return f"{model.hash} {model.reference.digest() if model.reference else None}"


def pinned(requests: Sequence[Request]) -> list[tuple[Request, str]]:
    """Requests, each with what its weights are known by, wherever it is carried out.

    Raises:
        GeomoeError: weights that are not there, or that have no such map.
    """
    pins: dict[tuple[object, ...], str] = {}
    found = []
    for request in requests:
        kind = (request.model, request.scale, *request.layers, request.fallback)
        if kind not in pins:
            pins[kind] = _pin(request)
            for model in _models(request) if request.layers or request.fallback else ():
                asked_of(model, request)
        # Workers may have been started in another folder.
        file = str(request.model).endswith(".safetensors")
        here = replace(request, model=os.path.abspath(str(request.model))) if file else request
        found.append((here, pins[kind]))
    return found


def _models(request: Request) -> Iterator[LoadedModel]:
    """Those that a scene may get."""
    if request.model == AUTO and request.scale is not None:
        yield from (load(str(path)) for path, _ in offered(request.scale).values())
    else:
        yield _loaded(str(request.model), request.scale)


def ready(request: Request, pin: str = "") -> Request:
    """A request with its model loaded, which is kept for the next one; as it is where each gets its own.

    Raises:
        GeomoeError: where it is not what was asked for.
    """
    if pin not in ("", _pin(request)):
        raise GeomoeError(
            f"{request.model} has other weights here, or another routing reference, than where the scenes "
            "were asked for"
        )
    if request.model == AUTO:
        return request
    return replace(request, model=_loaded(str(request.model), request.scale))


def is_done(request: Request) -> bool:
    """Whether everything that is asked for was made before, and no work was left."""
    # Where work was left, the job itself knows best how far it is.
    return not any(folder.exists() for folder in _folders(request)) and is_made(request)


def _outputs(of: Request) -> list[Path]:
    """Where everything goes, through symbolic links, as `Target` writes."""
    return [Path(os.path.realpath(path)) for path in of.places.values()]


def _folders(of: Request) -> list[Path]:
    """Where the work on each output is kept."""
    return [work_folder(path) for path in _outputs(of)]


def do_scene(request: Request, pin: str = "", progress: Progress | None = None) -> Outcome:
    """Super-resolve a scene unless it was done before; an error is an outcome.

    Args:
        request: with a model by its name.
        pin: of its weights, by `pinned`; any will do if it is empty.
        progress: told of every tile.
    """
    began = time.monotonic()
    try:
        outcome = _try(request, pin, progress)
    except BusyError as error:
        outcome = replace(failed(request, error), status="busy", sign=_sign(request))
    except Exception as error:  # a mistake of ours must not end the night either
        outcome = failed(request, error)
    return replace(outcome, seconds=time.monotonic() - began)


def _try(request: Request, pin: str, progress: Progress | None) -> Outcome:
    asked = ready(request, pin)
    if any(is_held(folder) for folder in _folders(request)):  # before all of the scene is read for nothing
        raise BusyError(f"another process is writing {request.dst}")
    if is_done(asked):
        return Outcome(request, "there")
    try:
        report = carry_out(asked, progress)
        return Outcome(request, "done", resumed=report.resumed, message="; ".join(report.plan.notes))
    except BusyError:
        raise
    except GeomoeError:
        if is_done(asked):  # by another process, between our look and our work
            return Outcome(request, "there")
        raise


def failed(request: Request, error: Exception) -> Outcome:
    """A scene that could not be made, and why in one line; there is nothing to be made of an empty one."""
    message = " ".join("; ".join([str(error), *getattr(error, "__notes__", [])]).split())
    if not isinstance(error, GeomoeError):
        message = f"{type(error).__name__}: {message}"
    return Outcome(request, "empty" if isinstance(error, EmptyError) else "failed", message=message)


def tidy(request: Request) -> None:
    """Remove the work that a process which was killed left of a scene, if no tile of it is done."""
    with suppress(OSError, GeomoeError):
        targets = [Target(path, overwrite=True) for path in _outputs(request)]
        first = targets[0].folder
        journal = first / "journal"
        if (first / "commit").exists() or (journal.exists() and journal.read_bytes().strip()):
            return
        for target in targets:
            if target.folder.exists():
                with target.held():
                    target.clean()


def _sign(request: Request) -> int:
    """What changes as long as a process works on a scene."""
    total = 0
    for folder in _folders(request):
        with suppress(OSError), os.scandir(folder) as entries:
            total += sum(entry.stat(follow_symlinks=False).st_mtime_ns for entry in entries)
    return total
