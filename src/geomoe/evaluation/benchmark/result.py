"""What a finished run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.files import read_small, write_csv, write_text

__all__ = ["Result", "join", "read_result", "write_json", "write_scores"]


@dataclass(frozen=True)
class Result:
    """Scores of one arm trained with one seed.

    Attributes:
        hash: of the run's configuration and data.
        arm, seed: of the run.
        steps: it was trained for.
        seconds: of training, interruptions left out and what they cost counted.
        scored: what was scored, in words.
        psnr, ssim: of every test image by its path; dB for ``psnr``.
        bicubic_psnr, bicubic_ssim: means of bicubic upsampling.
        curve: step and validation PSNR, dB.
        weights: hash of the weights that were scored.
        commit: of the program that trained them.
        hardware: that trained them.
        config: of the run, resolved.
        by_degradation, bicubic_by_degradation: PSNR by degradation and image, where there are several
            sources.
    """

    hash: str
    arm: str
    seed: int
    steps: int
    seconds: float
    scored: str
    psnr: dict[str, float]
    ssim: dict[str, float]
    bicubic_psnr: float
    bicubic_ssim: float
    curve: list[tuple[int, float]]
    weights: str
    commit: str
    hardware: str
    config: dict[str, Any]
    by_degradation: dict[str, dict[str, float]] = field(default_factory=dict)
    bicubic_by_degradation: dict[str, dict[str, float]] = field(default_factory=dict)


def read_result(path: Path) -> Result | None:
    """The result in a file, None where there is no file.

    Raises:
        GeomoeError: something else is in the file.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(read_small(path))
        return Result(**{**found, "curve": [(step, psnr) for step, psnr in found["curve"]]})
    except (ValueError, TypeError, KeyError) as error:
        raise GeomoeError(f"{path} is no result of a run; remove it, and the run is scored again") from error


def join(arm: str, parts: Sequence[Result]) -> Result:
    """Results of one seed on images that differ, such as those of a network for each sensor, as one.

    Args:
        arm: name of what they are parts of.
        parts: at least one.
    """
    if len(parts) == 1:
        return replace(parts[0], arm=arm)
    sizes = [len(part.psnr) for part in parts]

    def mean(values: Iterable[float]) -> float:
        return sum(n * value for n, value in zip(sizes, values, strict=True)) / sum(sizes)

    def union(tables: Iterable[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
        joined: dict[str, dict[str, float]] = {}
        for table in tables:
            for degradation, values in table.items():
                joined.setdefault(degradation, {}).update(values)
        return joined

    return replace(
        parts[0],
        arm=arm,
        steps=sum(part.steps for part in parts),
        seconds=sum(part.seconds for part in parts),
        psnr={image: psnr for part in parts for image, psnr in part.psnr.items()},
        ssim={image: ssim for part in parts for image, ssim in part.ssim.items()},
        bicubic_psnr=mean(part.bicubic_psnr for part in parts),
        bicubic_ssim=mean(part.bicubic_ssim for part in parts),
        curve=[],
        by_degradation=union(part.by_degradation for part in parts),
        bicubic_by_degradation=union(part.bicubic_by_degradation for part in parts),
    )


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain value; raises GeomoeError where it cannot be written."""
    text = json.dumps(value if isinstance(value, dict) else asdict(value), indent=1)
    write_text(path, f"{text}\n")


def write_scores(path: Path, results: Iterable[Result]) -> None:
    """A line for every arm, seed and test image, for tests of other people's making.

    Raises:
        GeomoeError: it cannot be written.
    """
    rows = [
        [result.arm, result.seed, image, f"{psnr:.4f}", f"{result.ssim[image]:.5f}"]
        for result in results
        for image, psnr in result.psnr.items()
    ]
    write_csv(path, [["arm", "seed", "image", "psnr", "ssim"], *rows])
