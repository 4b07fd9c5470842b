"""Places that were trained on beside places that were held out: scores, and where the router sends each.

    python benchmarks/shift.py dubai runs/dubai/tiles/land_moe runs/dubai/tiles/land_active

Takes the weights that `geomoe benchmark` left of an arm, `ARM/seed*/best.safetensors`. Seen places are scored
on their images that validated the training, held-out ones on all of theirs; both also as another sensor would
have taken them (`geomoe.data.other_sensor`). A model that takes each image for one of the places it knows, as
`gram`, is adapted to each held-out place by itself, too, without labels, and scored there again.

Of each place it is told how far its use of experts lies from that of the seen places, itself left out: half
the sum of the differences of the mean gates (0 the same, 1 no expert in common), the mean over mixtures. If
routing answers to a place, held-out places lie further away than seen ones do from each other. Where a model
guesses places, it is said which one most images of each are taken for. Means are over seeds, with intervals
of 95 % (Student's t) where there are three or more.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

import geomoe
from geomoe.data.images import to_unit
from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.evaluation.adapt import adapt_model
from geomoe.evaluation.samples import batches, score_samples
from geomoe.evaluation.statistics import mean_interval
from geomoe.moe import RoutingTrace
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData
from geomoe.tasks.stream import Named

COLUMNS = ("seen", "held out", "seen, other sensor", "held out, other sensor", "held out, adapted")


def place(name: str) -> str:
    """The folder of a sample."""
    return name.rpartition("/")[0] or name


def of_places(named: Named) -> dict[str, Named]:
    """The samples of each folder."""
    folders: dict[str, list[int]] = {}
    for i, (name, _) in enumerate(named.samples):
        folders.setdefault(place(name), []).append(i)
    return {
        folder: replace(named, samples=[named.samples[i] for i in which]) for folder, which in folders.items()
    }


def answered(task: Segmentation, batch: Batch) -> Tensor:
    """Probabilities of the classes."""
    with torch.inference_mode():
        return task.answer(task.predict(batch))


def used(task: Segmentation, named: Named) -> list[Tensor]:
    """The mean gate of each expert, of every mixture."""
    sums: list[Tensor] = []
    for _, sample in named.samples:
        trace = RoutingTrace()
        batch = {key: (to_unit(value) if key == "image" else value)[None] for key, value in sample.items()}
        with torch.inference_mode():
            task.predict(batch, trace)
        gates = [plan.of_valid().gates.sum(0) for plan in trace]
        sums = [one + more for one, more in zip(sums, gates, strict=True)] if sums else gates
    return sums


def apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """How far two uses of experts lie apart, 0 to 1, the mean over mixtures."""
    shares = [(a / a.sum(), b / b.sum()) for a, b in zip(one, other, strict=True)]
    return fmean(float((a - b).abs().sum() / 2) for a, b in shares)


def moved(seen: dict[str, list[Tensor]], held: dict[str, list[Tensor]]) -> dict[str, float]:
    """How far each place lies from the seen ones, itself left out."""
    found = {}
    for name, use in {**seen, **held}.items():
        others = [theirs for other, theirs in seen.items() if other != name]
        found[name] = apart(use, [torch.stack(each).sum(0) for each in zip(*others, strict=True)])
    return found


def taken_for(model: Any, named: Named) -> str:
    """The known place that most images look like to a model, and how many do."""
    names = model.config.domains
    with torch.inference_mode():
        votes = Counter(
            names[int(model.guess(to_unit(sample["image"])[None]))] for _, sample in named.samples
        )
    [(name, most)] = votes.most_common(1)
    return f"{name} ({most} of {len(named.samples)})"


def adapted(task: Segmentation, places: Iterable[Named], metric: str) -> float:
    """Score of models that went on to learn from the images of a place each, of all pixels at once."""
    scores = task.metrics()
    for named in places:
        other = deepcopy(task)
        adapt_model(other.model, named.samples)
        for _, batch in batches(named.samples):
            scores.update(answered(other, batch), task.truth(batch))
    return float(scores.compute()[metric])


def of_seed(path: Path, data: Path, metric: str) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Scores by column, how far each place lies from the seen ones, and what each is taken for."""
    weights = geomoe.load(str(path))
    task = Segmentation.of(weights)
    task.eval()
    seen, held = (SegmentationData.named(data, part, weights) for part in ("validation", "test"))
    parts = dict(zip(COLUMNS, (seen, held, seen.of_other_sensor(), held.of_other_sensor()), strict=False))
    scores = {
        column: score_samples(task, named, partial(answered, task)).overall.values[metric]
        for column, named in parts.items()
    }
    places = {"seen": of_places(seen), "held": of_places(held)}
    uses = {
        kind: {name: used(task, named) for name, named in named_of.items()}
        for kind, named_of in places.items()
    }
    far = moved(uses["seen"], uses["held"]) if next(iter(uses["held"].values())) else {}
    guesses: dict[str, str] = {}
    if hasattr(weights.model, "opinions"):
        for name, named in {**places["seen"], **places["held"]}.items():
            guesses[name] = taken_for(weights.model, named)
        scores[COLUMNS[-1]] = adapted(task, places["held"].values(), metric)
    kind = {name: kind for kind, named_of in places.items() for name in named_of}
    return scores, {f"{name}, {kind[name]}": value for name, value in far.items()}, guesses


def weights_of(arm: Path) -> list[Path]:
    """The best weights of each seed of an arm of a benchmark."""
    paths = sorted(arm.glob("seed*/best.safetensors"))
    if not paths:
        raise GeomoeError(f"{arm} has no seed*/best.safetensors; give the folder of an arm of a benchmark")
    return paths


def text(values: Sequence[float]) -> str:
    """A mean, with half its interval where there are seeds enough."""
    if len(values) < 3:
        return f"{fmean(values):.3f}"
    one = mean_interval(np.array(values)[:, None])
    return f"{one.mean:.3f} ± {one.half:.3f}"


def main() -> None:
    """Score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("arms", nargs="+", type=Path, help="folders of an arm, with one for each seed")
    parser.add_argument("--metric", default="miou", help="such as oa, miou, f1")
    given = parser.parse_args()
    print(" | ".join([given.metric, *COLUMNS]))
    lines = []
    for arm in given.arms:
        found = [of_seed(path, given.data, given.metric) for path in weights_of(arm)]
        row = [[scores[column] for scores, _, _ in found if column in scores] for column in COLUMNS]
        print(" | ".join([arm.name, *(text(values) if values else "" for values in row)]), flush=True)
        for name in found[0][1]:
            lines.append(f"{arm.name} | {name} | {text([far[name] for _, far, _ in found])}")
        for name in found[0][2]:
            lines.append(f"{arm.name} | {name} is taken for | {'; '.join(g[name] for _, _, g in found)}")
    print("\nhow far the use of experts lies from that of the seen places", *lines, sep="\n")


if __name__ == "__main__":
    main()
