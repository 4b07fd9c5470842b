"""Things that a model finds by centres and offsets, beside the connected pieces of its own class map.

    python benchmarks/instances.py fields runs/fields/fields/mfiae runs/fields/fields/mfiae_active

Takes the weights that `geomoe benchmark` left of an arm, `ARM/seed*/best.safetensors`, and prints, for each
folder of the test images, panoptic, segmentation and recognition quality of things (by torchmetrics) and how
far their number in an image is off, the mean. Truths are connected pieces of the masks: things that touch are
one there. Pieces of less pixels than the model's `least` are no things. Means are over seeds, with intervals
of 95 % (Student's t) where there are three or more. Then, of the truths, the share of the pixels of things
that lie farther from their centre than a pixel may point, and how many pixels a thing has, the median.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

import geomoe
from geomoe.errors import GeomoeError
from geomoe.evaluation.samples import batches
from geomoe.layers.panoptic import FARTHEST, centre_targets
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData
from geomoe.tasks.stream import Named
from shift import of_places, text

COLUMNS = ("pq_things", "sq_things", "rq_things", "off by")


def number(panoptic: Tensor) -> int:
    """Of the things in ``[B, H, W, 2]`` of one image."""
    return len(panoptic[..., 1][panoptic[..., 1] > 0].unique())


def of_truths(task: Segmentation, named: Named) -> tuple[float, float]:
    """Share of the pixels of things that lie too far from their centre; pixels of the median thing."""
    far, sizes = 0, []
    for _, batch in batches(named.samples):
        numbers = task.model.true_instances(task.truth(batch))[..., 1]  # type: ignore[operator]
        _, ways = centre_targets(numbers)
        far += int((ways.abs() > FARTHEST).any(1).sum())
        sizes += [int(size) for one in numbers for size in one[one > 0].unique(return_counts=True)[1]]
    return far / max(sum(sizes), 1), median(sizes or [0])


def pieces(task: Segmentation, said: Tensor) -> Tensor:
    """The map by what hangs together in it."""
    found: Tensor = task.model.true_instances(said[..., 0])  # type: ignore[operator]
    return found


def scored(task: Segmentation, named: Named, parted: Callable[[Tensor], Tensor]) -> list[float]:
    """Of :data:`COLUMNS`; ``parted`` makes the panoptic map from that of the model."""
    metric, off = task.instance_metrics(), []
    assert metric is not None
    for _, batch in batches(named.samples):
        with torch.inference_mode():
            said, true = task.instances(batch)
        found = parted(said)
        metric.update(found, true)
        off += [abs(number(one) - number(other)) for one, other in zip(found, true, strict=True)]
    values = metric.compute()
    return [*(float(values[name]) for name in COLUMNS[:-1]), fmean(off)]


def main() -> None:
    """Score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("arms", nargs="+", type=Path, help="folders of an arm, with one for each seed")
    given = parser.parse_args()
    print(" | ".join(["arm", "folder", "things by", *COLUMNS]))
    for arm in given.arms:
        paths = sorted(arm.glob("seed*/best.safetensors"))
        if not paths:
            raise GeomoeError(f"{arm} has no seed*/best.safetensors; give the folder of an arm")
        rows: dict[tuple[str, str], list[list[float]]] = {}
        for path in paths:
            weights = geomoe.load(str(path))
            task = Segmentation.of(weights)
            task.eval()
            if task.instance_metrics() is None:
                raise GeomoeError(f"{path} knows no instances")
            ways: dict[str, Callable[[Tensor], Tensor]] = {
                "centres": torch.clone,
                "pieces": partial(pieces, task),
            }
            for folder, named in of_places(SegmentationData.named(given.data, "test", weights)).items():
                for way, parted in ways.items():
                    rows.setdefault((folder, way), []).append(scored(task, named, parted))
        for (folder, way), seeds in rows.items():
            columns = map(text, zip(*seeds, strict=True))
            print(" | ".join([arm.name, folder, way, *columns]), flush=True)
    far, size = of_truths(task, SegmentationData.named(given.data, "test", weights))
    print(f"truths: {far:.2%} of pixels farther than {FARTHEST}; median thing {size:g} pixels")


if __name__ == "__main__":
    main()
