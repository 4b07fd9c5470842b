"""A scene through a model: what it takes, and doing it."""

from __future__ import annotations

from geomoe.pipeline.describe import describe_scene
from geomoe.pipeline.forecast import Forecast, forecast_upscale
from geomoe.pipeline.forecasts import ManyForecast, forecast_many
from geomoe.pipeline.manifest import (
    Outcome,
    SceneTask,
    Settings,
    UnfinishedReport,
    check_report,
    read_manifest,
    write_report,
)
from geomoe.pipeline.many import upscale_many
from geomoe.pipeline.plan import UpscalePlan, plan_upscale
from geomoe.pipeline.progress import Night, Progress
from geomoe.pipeline.request import Options, Request
from geomoe.pipeline.runner import Upscaler
from geomoe.pipeline.tiles import Box, Tile, Tiles
from geomoe.pipeline.upscale import UpscaleReport, upscale
from geomoe.pipeline.verify import Verification, verify

__all__ = [
    "Box",
    "Forecast",
    "ManyForecast",
    "Night",
    "Options",
    "Outcome",
    "Progress",
    "Request",
    "SceneTask",
    "Settings",
    "Tile",
    "Tiles",
    "UnfinishedReport",
    "UpscalePlan",
    "UpscaleReport",
    "Upscaler",
    "Verification",
    "check_report",
    "describe_scene",
    "forecast_many",
    "forecast_upscale",
    "plan_upscale",
    "read_manifest",
    "upscale",
    "upscale_many",
    "verify",
    "write_report",
]
