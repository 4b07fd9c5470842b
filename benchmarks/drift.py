"""How often `geomoe monitor` gives an alarm, on real samples with and without a changed sensor.

python benchmarks/drift.py best.safetensors FOLDER_OF_THE_DATA

Reference and new samples are drawn again and again from those that were not trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geomoe import load
from geomoe.data.images import to_unit
from geomoe.evaluation.drift import shifts_of, statistics_of
from geomoe.models.drift import DriftReference
from geomoe.tasks.families import family

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    **{f"gain {g:g}": lambda x, g=g: (x * g).clamp(0, 1) for g in (1.02, 1.05, 1.1, 1.2)},
    "offset 0.03": lambda x: (x + 0.03).clamp(0, 1),
    "bands reversed": lambda x: x.flip(0),
}
REFERENCE, NEW, LEVELS = 120, (20, 60, 120), (0.01, 0.1)


def main() -> None:
    """Print the share of draws that give an alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=40, help="with a change; five times as many without")
    given = parser.parse_args()
    model = load(given.weights)
    data = family(model.card.task).data
    images = [
        to_unit(sample["image"])
        for part in ("validation", "test")
        for _, sample in data.named(given.data, part, model).samples
    ]
    rows = {
        name: [statistics_of(model, {"image": change(image)}, None) for image in images]
        for name, change in CHANGES.items()
    }
    names = tuple(rows["none"][0])
    values = {name: np.array([[row[of] for of in names] for row in some]) for name, some in rows.items()}
    rng = np.random.default_rng(0)
    print(f"{len(images)} samples, {len(names)} statistics, {REFERENCE} in the reference")
    for new in NEW:
        for name, changed in values.items():
            draws = given.draws * (5 if name == "none" else 1)
            least = []
            for _ in range(draws):
                order = rng.permutation(len(images))
                old = torch.tensor(values["none"][order[:REFERENCE]])
                later = changed[order[REFERENCE : REFERENCE + new]]
                least.append(shifts_of({"all": later}, DriftReference(names, old, None, ""))[0].p)
            rates = ", ".join(f"{np.mean(np.array(least) < level):.3f} at {level:g}" for level in LEVELS)
            print(f"{new} new, {name}: {rates}")


if __name__ == "__main__":
    main()
