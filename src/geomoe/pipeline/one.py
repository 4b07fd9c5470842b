"""One scene of many, in whatever process it is done."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.models import LoadedModel, load
from geomoe.pipeline.job import is_made
from geomoe.pipeline.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.upscale import upscale
from geomoe.raster.lock import BusyError

__all__ = ["do_scene"]

_one_at_a_time = threading.Lock()
"""Scenes of one process: each uses all of its threads, and the number of torch's is the process's."""


@lru_cache(maxsize=1)
def _loaded(name: str, scale: int) -> LoadedModel:
    return load(name, scale)


def do_scene(task: SceneTask, settings: Settings) -> Outcome:
    """Super-resolve a scene unless it was done before; an error is an outcome."""
    began = time.monotonic()

    def outcome(status: str, resumed: int = 0, error: Exception | None = None) -> Outcome:
        message = "" if error is None else " ".join(str(error).split())
        if error is not None and not isinstance(error, GeomoeError):
            message = f"{type(error).__name__}: {message}"
        return Outcome(task, status, time.monotonic() - began, resumed, message=message)  # type: ignore[arg-type]

    try:
        with _one_at_a_time:
            began = time.monotonic()
            model = _loaded(settings.model, settings.scale)
            whole = task.experts is None or Path(task.experts).exists()
            if (
                whole
                and not settings.overwrite
                and is_made(task.src, task.dst, model, task.bands, settings.tile)
            ):
                return outcome("there")
            given = {**asdict(settings), "model": model}
            return outcome(
                "done", upscale(task.src, task.dst, experts=task.experts, bands=task.bands, **given).resumed
            )
    except BusyError as error:
        return outcome("busy", error=error)
    except Exception as error:  # a mistake of ours must not end the night either
        return outcome("failed", error=error)
