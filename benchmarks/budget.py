"""What accuracy costs: scores of a network under budgets, beside the operations that it executes.

    python benchmarks/budget.py runs/dubai_budget_moe/best.safetensors dubai

A budget is the share of the cells, in each mixture, that are given an expert: those with the largest gate.
Which gate is large enough is found on the images that the training validated on, and the scores are of those
that it held out. Operations are counted where they are executed, of the first of these, for each pixel. With
`--out FOLDER` the weights under each budget are written, which `geomoe predict` and `geomoe evaluate` take
like any others.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import geomoe
from geomoe.data.images import to_unit
from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.evaluation.samples import score_samples
from geomoe.models.weights import save
from geomoe.moe import count_flops
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData

SIDE = 512
"""Of the part of an image whose operations are counted, pixels at most."""


def main() -> None:
    """Set each budget, score, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--shares", nargs="+", type=float, default=[1.0, 0.75, 0.5, 0.25, 0.0])
    parser.add_argument("--out", type=Path, help="folder for the weights under each budget")
    given = parser.parse_args()
    weights = geomoe.load(str(given.weights))
    if not hasattr(weights.model, "spend"):
        raise GeomoeError(f"{given.weights} is of {weights.card.model}, which has no budget; give budget_moe")
    task = Segmentation.of(weights)
    task.eval()
    kept, held = (SegmentationData.named(given.data, part, weights) for part in ("validation", "test"))
    shown = [to_unit(sample["image"])[None] for _, sample in kept.samples]
    image = to_unit(held.samples[0][1]["image"])[None, :, :SIDE, :SIDE]

    def answered(batch: Batch) -> torch.Tensor:
        with torch.inference_mode():
            return task.answer(task.predict(batch))

    print("| cells with an expert | MFLOP a kilopixel | OA | mIoU |\n|---:|---:|---:|---:|")
    for share in given.shares:
        weights.model.spend(share, shown)  # type: ignore[operator]
        found = score_samples(task, held, answered).overall.values
        with torch.inference_mode():
            flops = count_flops(lambda: weights.model(image))
        cost = flops / image[0, 0].numel() / 1e3
        print(f"| {share:.0%} | {cost:.2f} | {found['oa']:.4f} | {found['miou']:.4f} |", flush=True)
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            recipe = {**weights.card.recipe, "budget": share}
            card = replace(weights.card, recipe=recipe, scores={}, measured=[], bfloat16={})
            save(given.out / f"budget_{round(100 * share):03d}.safetensors", weights.model, card)


if __name__ == "__main__":
    main()
