"""What version 0.1 wrote of scores, which knew PSNR and SSIM beside bicubic upsampling, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RANKS", "measured_by_name", "result_by_name"]

RANKS = "psnr"
"""By which models are compared where that is not said."""
_DIGITS = 4


def measured_by_name(held: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says was measured, with scores by the names of metrics; raises KeyError, TypeError."""
    if "gain" not in held:
        return dict(held)
    rest = {name: value for name, value in held.items() if name not in ("gain", "bicubic")}
    psnr = round(held["bicubic"] + held["gain"], _DIGITS)
    return {**rest, "scores": {"psnr": psnr}, "baseline": {"psnr": held["bicubic"]}}


def result_by_name(found: dict[str, Any]) -> dict[str, Any]:
    """The result of a run, with scores by the names of metrics; raises KeyError, AttributeError."""
    if "psnr" not in found:
        return found
    psnr, ssim = found.pop("psnr"), found.pop("ssim")
    base = {metric: found.pop(f"bicubic_{metric}") for metric in ("psnr", "ssim")}
    ours, others = found.pop("by_degradation", {}), found.pop("bicubic_by_degradation", {})

    def named(table: dict[str, dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
        return {of: {item: {"psnr": value} for item, value in by.items()} for of, by in table.items()}

    return {
        **found,
        "scores": {item: {"psnr": value, "ssim": ssim[item]} for item, value in psnr.items()},
        "baseline": base,
        "by_degradation": named(ours),
        "baseline_by_degradation": named(others),
    }
