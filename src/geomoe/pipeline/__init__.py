"""A scene through a model: what it takes, and doing it.

Importing this package is cheap: torch is imported with the first name that needs it, so that bad input is
told before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geomoe.pipeline.batch.estimate import ManyForecast, forecast_many
    from geomoe.pipeline.batch.manifest import read_manifest
    from geomoe.pipeline.batch.report import Outcome, UnfinishedReport, check_report, write_report
    from geomoe.pipeline.batch.scenes import predict_many
    from geomoe.pipeline.describe import describe_scene
    from geomoe.pipeline.estimate import Forecast, forecast_scene
    from geomoe.pipeline.plan import ScenePlan, plan_scene
    from geomoe.pipeline.progress import Night, Progress
    from geomoe.pipeline.request import Request
    from geomoe.pipeline.run import SceneReport, predict, upscale
    from geomoe.pipeline.runner import Predictor
    from geomoe.pipeline.table import TableReport, check_table, predict_table
    from geomoe.pipeline.tiles import Box, Tile, Tiles
    from geomoe.pipeline.verification import Verification, verify

__all__ = [
    "Box",
    "Forecast",
    "ManyForecast",
    "Night",
    "Outcome",
    "Predictor",
    "Progress",
    "Request",
    "ScenePlan",
    "SceneReport",
    "TableReport",
    "Tile",
    "Tiles",
    "UnfinishedReport",
    "Verification",
    "check_report",
    "check_table",
    "describe_scene",
    "forecast_many",
    "forecast_scene",
    "plan_scene",
    "predict",
    "predict_many",
    "predict_table",
    "read_manifest",
    "upscale",
    "verify",
    "write_report",
]

_HOMES = {
    "Box": "tiles",
    "Forecast": "estimate",
    "ManyForecast": "batch.estimate",
    "Night": "progress",
    "Outcome": "batch.report",
    "Progress": "progress",
    "Request": "request",
    "TableReport": "table",
    "Tile": "tiles",
    "Tiles": "tiles",
    "UnfinishedReport": "batch.report",
    "ScenePlan": "plan",
    "SceneReport": "run",
    "Predictor": "runner",
    "Verification": "verification",
    "check_report": "batch.report",
    "check_table": "table",
    "describe_scene": "describe",
    "forecast_many": "batch.estimate",
    "forecast_scene": "estimate",
    "plan_scene": "plan",
    "predict": "run",
    "predict_table": "table",
    "read_manifest": "batch.manifest",
    "upscale": "run",
    "predict_many": "batch.scenes",
    "verify": "verification",
    "write_report": "batch.report",
}


# What names that `predict` has made too narrow were in 0.1.
_EARLIER = {
    "UpscalePlan": "ScenePlan",
    "UpscaleReport": "SceneReport",
    "Upscaler": "Predictor",
    "forecast_upscale": "forecast_scene",
    "plan_upscale": "plan_scene",
    "upscale_many": "predict_many",
}


def __getattr__(name: str) -> Any:
    name = _EARLIER.get(name, name)
    if name not in _HOMES:
        raise AttributeError(f"module 'geomoe.pipeline' has no attribute {name!r}")
    return getattr(import_module(f"geomoe.pipeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
