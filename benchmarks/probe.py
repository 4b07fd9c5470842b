"""What features of weights are worth: a linear classifier on them, beside one on those of random weights.

python benchmarks/probe.py FOLDER_OF_CLASSES --model base_t
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from geomoe.data.class_folders import labelled_files
from geomoe.data.images import read_picture, to_unit
from geomoe.data.labels import resized
from geomoe.models import load
from geomoe.models.registry import build

_BATCH = 64


def features(model: nn.Module, images: Tensor) -> Tensor:
    """``[N, features]`` of ``[N, bands, size, size]``."""
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in images.split(_BATCH)])


def main() -> None:
    """Print the accuracy on the test images, of the weights and of random ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="base_t", help="weights of a model without classes")
    parser.add_argument("--random", type=int, default=3, help="random networks beside it")
    given = parser.parse_args()
    weights = load(given.model, gives="features")
    size, bands, name = weights.card.recipe["size"], weights.contract.bands, weights.card.model
    listed = {part: labelled_files(given.data, part) for part in ("train", "test")}
    images = {
        part: torch.stack([to_unit(resized(read_picture(one.path, bands).data, size)) for one in found])
        for part, found in listed.items()
    }
    models = {given.model: weights.model}
    for seed in range(given.random):
        torch.manual_seed(seed)
        models[f"random weights, seed {seed}"] = build(name, weights.card.config).eval()
    print(f"{len(images['train'])} images to learn from, {len(images['test'])} to test, {size} pixels wide")
    for label, model in models.items():
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        found = {part: features(model, shown).numpy() for part, shown in images.items()}
        probe.fit(found["train"], [one.label for one in listed["train"]])
        print(f"{label}: {probe.score(found['test'], [one.label for one in listed['test']]):.3f}")


if __name__ == "__main__":
    main()
