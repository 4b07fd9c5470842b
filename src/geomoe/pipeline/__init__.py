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
    from geomoe.pipeline.batch.many import upscale_many
    from geomoe.pipeline.batch.report import Outcome, UnfinishedReport, check_report, write_report
    from geomoe.pipeline.describe import describe_scene
    from geomoe.pipeline.estimate import Forecast, forecast_upscale
    from geomoe.pipeline.plan import UpscalePlan, plan_upscale
    from geomoe.pipeline.progress import Night, Progress
    from geomoe.pipeline.request import Request
    from geomoe.pipeline.run import UpscaleReport, predict, upscale
    from geomoe.pipeline.runner import Upscaler
    from geomoe.pipeline.table import TableReport, check_table, predict_table
    from geomoe.pipeline.tiles import Box, Tile, Tiles
    from geomoe.pipeline.verification import Verification, verify

__all__ = [
    "Box",
    "Forecast",
    "ManyForecast",
    "Night",
    "Outcome",
    "Progress",
    "Request",
    "TableReport",
    "Tile",
    "Tiles",
    "UnfinishedReport",
    "UpscalePlan",
    "UpscaleReport",
    "Upscaler",
    "Verification",
    "check_report",
    "check_table",
    "describe_scene",
    "forecast_many",
    "forecast_upscale",
    "plan_upscale",
    "predict",
    "predict_table",
    "read_manifest",
    "upscale",
    "upscale_many",
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
    "UpscalePlan": "plan",
    "UpscaleReport": "run",
    "Upscaler": "runner",
    "Verification": "verification",
    "check_report": "batch.report",
    "check_table": "table",
    "describe_scene": "describe",
    "forecast_many": "batch.estimate",
    "forecast_upscale": "estimate",
    "plan_upscale": "plan",
    "predict": "run",
    "predict_table": "table",
    "read_manifest": "batch.manifest",
    "upscale": "run",
    "upscale_many": "batch.many",
    "verify": "verification",
    "write_report": "batch.report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geomoe.pipeline' has no attribute {name!r}")
    return getattr(import_module(f"geomoe.pipeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
