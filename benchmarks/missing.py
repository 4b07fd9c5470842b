"""What remains of the accuracy where a share of the ground lacks a sensor.

    python benchmarks/missing.py indian_pines.npz --seeds 0 1 2

Trains, by the recipe of the configuration `indian_pines_mamol`, and scores on blocks that are apart from all
that was trained on:

- mamol: the system, whose adapters learn on samples of which seven in ten lack a sensor;
- mixture_rs: MixtureRS, on such samples from the first step;
- mean: MixtureRS on whole samples, which is shown the mean of each band in the place of what is missing, and
  is not told;
- forest: a random forest on the spectra, likewise.

Of the scene, squares of 12 pixels lack a sensor by chance, and what lacks one at a share does at all larger
ones. Each seed is of the training, of the split and of that chance, so an interval (95 %, Student's t over
the seeds) covers other splits, too. Options of `geomoe fit`, such as `--data.batch_size=64`, are of all
networks. What is there is not trained again: the same command goes on where it was stopped. `scores.csv` has
a line for each arm, seed and share, `missing.png` the curves.
"""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import geomoe
from geomoe.data.sample import Batch, Lazy, Sample
from geomoe.evaluation.benchmark.estimators import fit_estimator
from geomoe.evaluation.figures import write_figure
from geomoe.evaluation.samples import score_samples
from geomoe.evaluation.statistics import Interval, mean_interval
from geomoe.files import atomic_write
from geomoe.layers.sensors import by_band
from geomoe.models import read_card
from geomoe.tasks.fit import fit
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData
from geomoe.tasks.stream import Named

_MIXTURE = ["--model.model=mixture_rs", "--model.options={patch: 9, reduced: [24, 8]}"]
ARMS: dict[str, list[str]] = {
    "mamol": [],
    "mixture_rs": [*_MIXTURE, "--data.missing=0.7"],
    "mean": _MIXTURE,
    "forest": [],
}
"""Options of `geomoe fit` by which an arm differs from the configuration."""
TOLD = ("mamol", "mixture_rs")
"""The arms that know what is missing."""
COLOURS = {"mamol": "#0072b2", "mixture_rs": "#e69f00", "mean": "#009e73", "forest": "#cc79a7"}
BLOCK = 12
"""Side of the squares that lack a sensor, pixels."""


def absent(shape: torch.Size, share: float, seed: int) -> Tensor:
    """``[S, H, W]`` bool, the sensors that each pixel lacks; never all, and those of a smaller share too."""
    sensors, height, width = shape
    rng = np.random.default_rng(seed)
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    gone = rng.random((rows, columns)) < share
    pattern = rng.integers(1, 2**sensors - 1, (rows, columns))  # of the sensors that go, in bits
    lost = np.stack([gone & (pattern >> s & 1).astype(bool) for s in range(sensors)])
    return torch.from_numpy(lost.repeat(BLOCK, 1).repeat(BLOCK, 2)[:, :height, :width])


def lacking(named: Named, share: float, seed: int, fill: Tensor, told: bool) -> Named:
    """The same samples, a share of which lacks a sensor and has ``fill`` in its place."""

    def read(place: int) -> tuple[str, Sample]:
        name, sample = named.samples[place]
        present = sample["present"] & ~absent(sample["present"].shape, share, seed + place)
        image = torch.where(by_band(present, named.sensors), sample["image"], fill)
        return name, {**sample, "image": image, "present": present if told else sample["present"]}

    return replace(named, samples=Lazy(read, range(len(named.samples))))


def _network(arm: str, seed: int, given: argparse.Namespace) -> tuple[Segmentation, Named]:
    """Trained as far as it is not yet, and the test samples of its split."""
    out = given.out / f"{arm}_{seed}"
    last, resumed = out / "last.safetensors", []
    if last.exists():
        resumed = [f"--ckpt_path={out / 'last.ckpt'}"]
    if not last.exists() or read_card(last).recipe["steps"] < given.steps:
        fit(
            [
                "--config=indian_pines_mamol", f"--data.root={given.data}", f"--seed_everything={seed}",
                f"--data.split_seed={seed}", f"--trainer.max_steps={given.steps}",
                f"--checkpoint.dirpath={out}", f"--trainer.default_root_dir={out}",
                f"--trainer.logger.init_args.save_dir={out}", "--trainer.accelerator=cpu",
                *ARMS[arm], *given.options, *resumed,
            ]
        )  # fmt: skip
    weights = geomoe.load(str(last))
    task = Segmentation.of(weights)
    task.eval()
    return task, SegmentationData.named(given.data, "test", weights)


def answered(task: Segmentation, batch: Batch) -> Tensor:
    """Probabilities of the classes."""
    with torch.inference_mode():
        return task.answer(task.predict(batch))


def scores(arm: str, seed: int, given: argparse.Namespace) -> list[float]:
    """Overall accuracy of an arm at each share."""
    # The forest is scored as the network that it stands beside: on its split, with its means.
    task, named = _network("mean" if arm == "forest" else arm, seed, given)
    mean = torch.tensor(task.model.config.mean).view(-1, 1, 1)
    says = partial(answered, task)
    if arm == "forest":
        data = SegmentationData(
            str(given.data), split_seed=seed, sensors=dict(named.sensors), names=list(task.classes)
        )
        options = {"n_estimators": 300, "class_weight": "balanced_subsample"}
        says = fit_estimator("random_forest", "pixels", options, seed, task, data.samples("fit"))
    return [
        score_samples(task, lacking(named, share, seed, mean, arm in TOLD), says).overall.values["oa"]
        for share in given.shares
    ]


def drawn(shares: list[float], found: dict[str, list[Interval]]) -> Figure:
    """Accuracy against the share that lacks a sensor."""
    figure = Figure(figsize=(6, 4), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for arm, intervals in found.items():
        means = np.array([one.mean for one in intervals])
        half = np.array([one.half for one in intervals])
        axes.plot(shares, means, color=COLOURS[arm], marker="o", label=arm)
        if np.isfinite(half).all():
            axes.fill_between(shares, means - half, means + half, color=COLOURS[arm], alpha=0.15, linewidth=0)
    axes.set_xlabel("share of the ground that lacks a sensor")
    axes.set_ylabel("overall accuracy")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Train, score, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/missing"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=900, help="of each network, all stages together")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.25, 0.5, 0.75, 1.0])
    given, given.options = parser.parse_known_args()
    if any(option.startswith("--trainer.max_steps") for option in given.options):
        parser.error("the steps are --steps: by them it is known what is trained already")
    of = {arm: [scores(arm, seed, given) for seed in given.seeds] for arm in given.arms}
    lines = [["arm", "seed", "share", "oa"]]
    for arm, seeds in of.items():
        for seed, accuracies in zip(given.seeds, seeds, strict=True):
            lines += [
                [arm, str(seed), f"{share:g}", f"{oa:.4f}"]
                for share, oa in zip(given.shares, accuracies, strict=True)
            ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with atomic_write(given.out / "scores.csv") as file:
        file.write(text.getvalue().encode())
    found = {
        arm: [mean_interval(np.array(seeds)[:, [i]]) for i in range(len(given.shares))]
        for arm, seeds in of.items()
    }
    write_figure(lambda: drawn(given.shares, found), given.out / "missing.png")
    print(" | ".join(["lacks a sensor", *(f"{share:g}" for share in given.shares)]))
    for arm, intervals in found.items():
        # Of one seed nothing is known of others.
        half = [f" ± {one.half:.3f}" if len(given.seeds) > 1 else "" for one in intervals]
        print(
            " | ".join([arm, *(f"{one.mean:.3f}{each}" for one, each in zip(intervals, half, strict=True))])
        )


if __name__ == "__main__":
    main()
