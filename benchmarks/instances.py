"""Things that a model finds by centres and offsets, beside the connected pieces of its own class map.

    python benchmarks/instances.py fields runs/fields/fields/mfiae runs/fields/fields/mfiae_active [--heads]

Takes the weights that `geomoe benchmark` left of an arm, `ARM/seed*/best.safetensors`, and prints, for each
folder of the test images, panoptic, segmentation and recognition quality of things (by torchmetrics) and how
far their number in an image is off, the mean. Truths are connected pieces of the masks: things that touch are
one there. With `--heads` the data are made fields, and truths the heads themselves, many of which touch in
`late`. True things of less pixels than the model's `least` count nowhere, and found ones are none, by centres
and by pieces; `geomoe evaluate` lets those by centres be. Means are over seeds, with intervals of 95 %
(Student's t) where there are three or more. Then, of the truths, the share of the pixels of things that lie
farther from their centre than a pixel may point, and how many pixels a thing has, the median.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import geomoe
from geomoe.data.fields import heads_of
from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.evaluation.samples import batches
from geomoe.layers.panoptic import FARTHEST, centre_targets, components
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData
from geomoe.tasks.stream import Named
from shift import of_places, text, weights_of

COLUMNS = ("pq_things", "sq_things", "rq_things", "off by")
Truths = Callable[[Segmentation, list[str], Batch], Tensor]
"""Panoptic maps ``[B, H, W, 2]`` of samples of these names."""


def of_masks(task: Segmentation, names: list[str], batch: Batch) -> Tensor:
    """What hangs together in masks."""
    model: Any = task.model
    found: Tensor = model.true_instances(task.truth(batch))
    return found


def of_heads(task: Segmentation, names: list[str], batch: Batch) -> Tensor:
    """Heads of made fields, as they were drawn."""
    model: Any = task.model
    classes = task.truth(batch).clone()
    heads = torch.from_numpy(np.stack([heads_of(name) for name in names]).astype(np.int64))
    if not torch.equal(heads > 0, torch.isin(classes, torch.tensor(model.things))):
        raise GeomoeError(f"{names[0]} is no field that geomoe data --make fields made")
    too_small = small(heads, model.config.least)
    return torch.stack([classes.masked_fill(too_small, -1), heads.masked_fill(too_small, 0)], -1)


def small(numbers: Tensor, least: int) -> Tensor:
    """Which pixels ``[B, H, W]`` are of things that are too small."""
    found = torch.zeros_like(numbers, dtype=torch.bool)
    for one, where in zip(numbers, found, strict=True):
        values, part, sizes = one.unique(return_inverse=True, return_counts=True)
        where |= ((sizes < least) & (values > 0))[part]
    return found


def centres(task: Segmentation, said: Tensor) -> Tensor:
    """A panoptic map as it was said; what is too small for a thing is of the instance 0."""
    model: Any = task.model
    classes, numbers = said.unbind(-1)
    return torch.stack([classes, numbers.masked_fill(small(numbers, model.config.least), 0)], -1)


def pieces(task: Segmentation, said: Tensor) -> Tensor:
    """A panoptic map by what hangs together in it; what is too small for a thing is of the instance 0."""
    model: Any = task.model
    return torch.stack([said[..., 0], components(said[..., 0], model.things, model.config.least)], -1)


def number(panoptic: Tensor) -> int:
    """Of the things in ``[H, W, 2]``."""
    return len(panoptic[..., 1][panoptic[..., 1] > 0].unique())


def scored(
    task: Segmentation, named: Named, truths: Truths, parted: Callable[[Tensor], Tensor]
) -> list[float]:
    """Of :data:`COLUMNS`; ``parted`` makes the panoptic map from that of the model."""
    metric, off = task.instance_metrics(), []
    assert metric is not None
    for names, batch in batches(named.samples):
        with torch.inference_mode():
            found = parted(task.instances(batch)[0])
        true = truths(task, names, batch)
        metric.update(found, true)
        off += [abs(number(one) - number(other)) for one, other in zip(found, true, strict=True)]
    values = metric.compute()
    return [*(float(values[name]) for name in COLUMNS[:-1]), fmean(off)]


def about(task: Segmentation, named: Named, truths: Truths) -> tuple[float, float]:
    """Of true things: share of pixels that lie too far from their centre, and pixels of the median one."""
    far, sizes = 0, []
    for names, batch in batches(named.samples):
        numbers = truths(task, names, batch)[..., 1]
        far += int((centre_targets(numbers)[1].abs() > FARTHEST).any(1).sum())
        sizes += [int(size) for one in numbers for size in one[one > 0].unique(return_counts=True)[1]]
    return far / max(sum(sizes), 1), median(sizes or [0])


def main() -> None:
    """Score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("arms", nargs="+", type=Path, help="folders of an arm, with one for each seed")
    parser.add_argument("--heads", action="store_true", help="of made fields: heads are true, not pieces")
    given = parser.parse_args()
    truths = of_heads if given.heads else of_masks
    print(" | ".join(["arm", "folder", "things by", *COLUMNS]))
    for arm in given.arms:
        rows: dict[tuple[str, str], list[list[float]]] = {}
        for path in weights_of(arm):
            weights = geomoe.load(str(path))
            task = Segmentation.of(weights)
            task.eval()
            if task.instance_metrics() is None:
                raise GeomoeError(f"{path} knows no instances")
            ways: dict[str, Callable[[Tensor], Tensor]] = {
                "centres": partial(centres, task),
                "pieces": partial(pieces, task),
            }
            of = SegmentationData.named(given.data, "test", weights)
            for folder, named in of_places(of).items():
                for way, parted in ways.items():
                    rows.setdefault((folder, way), []).append(scored(task, named, truths, parted))
        for (folder, way), seeds in rows.items():
            columns = map(text, zip(*seeds, strict=True))
            print(" | ".join([arm.name, folder, way, *columns]), flush=True)
    far, size = about(task, of, truths)
    print(f"truths: {far:.2%} of pixels farther than {FARTHEST}; median thing {size:g} pixels")


if __name__ == "__main__":
    main()
