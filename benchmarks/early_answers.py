"""Accuracy of a network's early answers against what they cost.

    python benchmarks/early_answers.py stacked=moe/seed0.safetensors stacked=moe/seed1.safetensors \\
        dense=dense/seed0.safetensors dense=dense/seed1.safetensors --data FOLDER_OF_UCMERCED

Of weights of ``stacked_moe``, which answer at every stage: files of one name are seeds of one network. Each
stage is made the last one, and the test images are scored: accuracy with its interval over images and seeds,
and multiply-adds of an image. The difference to the network named first is paired by seed and image.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomoe.data.sample import Batch
from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.samples import batches
from geomoe.evaluation.statistics import mean_interval
from geomoe.models.weights import load
from geomoe.moe.flops import count_flops
from geomoe.tasks.families import family


@torch.inference_mode()
def answered(path: str, shown: list[Batch]) -> list[tuple[list[float], float]]:
    """By stage, 1 for each test image that it is right about, and millions of multiply-adds of an image."""
    loaded = load(path)
    model: Any = loaded.model.eval()
    task, image = family(loaded.card.task).task.of(loaded), shown[0]["image"][:1]
    found = []
    for stage in range(1, len(model.config.widths) + 1):
        model.config = replace(model.config, answer=stage)
        right = torch.cat([task.by_item(task.answer(task.predict(batch)), batch)["oa"] for batch in shown])
        found.append((right.tolist(), count_flops(lambda: model(image)) / 2e6))
    return found


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_name: dict[str, list[list[tuple[list[float], float]]]] = {}
    pairs = [given.partition("=")[::2] for given in args.weights]
    first_of_all = load(pairs[0][1])
    samples = family(first_of_all.card.task).data.named(args.data, "test", first_of_all).samples
    shown = [batch for _, batch in batches(samples)]  # the same for all, read once
    for name, path in pairs:
        by_name.setdefault(name, []).append(answered(path, shown))
    rows, first = [], next(iter(by_name.values()))
    for name, seeds in by_name.items():
        for stage, of in enumerate(zip(*seeds, strict=True)):
            right = np.array([scores for scores, _ in of])
            score = mean_interval(right)
            row = {
                "network": name,
                "stage": stage + 1,
                "mmac": round(float(np.mean([macs for _, macs in of])), 3),
                "oa": round(score.mean, 4),
                "half": round(score.half, 4),
            }
            if seeds is not first and len(seeds) == len(first):
                less = mean_interval(right - np.array([one[stage][0] for one in first]))
                row["difference"] = [round(v, 4) for v in (less.mean, less.low, less.high)]
            rows.append(row)
    said = {"hardware": hardware(), "torch": torch.__version__, "date": datetime.now(UTC).date().isoformat()}
    if args.json:
        print(json.dumps({"rows": rows, **said}, indent=2))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
