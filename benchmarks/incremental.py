"""What an expert a satellite is worth to a student that learns classes in sessions, and what it forgets.

    python benchmarks/incremental.py FOLDER_OF_UCMERCED --seeds 0 1 2

Trains and scores, as the configuration `ucmerced_amoed` says, three sessions of six classes for every arm:

- amoed: the system;
- no_previous: without the term of old classes;
- even: its experts weighed alike;
- single: one teacher for all satellites, as large as the experts together;
- exemplars: no teacher at all, labels of the equi-partite subset alone, for as many steps;
- forest: a random forest on colour statistics of what each session may see;
- joint: all classes at once, labels of all images, for as many steps as all sessions together.

Scores are of the test images as the unseen satellite takes them. What is there is not trained again: the same
command goes on where it was stopped. A line for each arm, seed, session and test image is in `scores.csv`.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import geomoe
from geomoe.data.class_folders import class_names
from geomoe.evaluation.benchmark.estimators import fit_estimator
from geomoe.evaluation.samples import score_samples
from geomoe.evaluation.statistics import mean_interval
from geomoe.files import atomic_write
from geomoe.metrics.incremental import (
    average_accuracy,
    backward_transfer,
    forgetting,
    intransigence,
    of_sessions,
)
from geomoe.models import read_card
from geomoe.tasks.fit import fit
from geomoe.tasks.incremental import Incremental
from geomoe.tasks.incremental_data import IncrementalData

SESSIONS, CLASSES = 3, 6
_ALONE = "--model.stages=[{name: student, share: 1, trains: [student]}]"
ARMS: dict[str, list[str]] = {
    "amoed": [],
    "no_previous": ["--model.losses={cross_entropy: 1.0, mixture: 1.0}"],
    "even": ["--model.options={new: 6, experts: 3, vote: even}"],
    "single": ["--model.options={new: 6, experts: 3, twin: active}"],
    "exemplars": ["--model.losses={cross_entropy: 1.0}", _ALONE],
    "forest": [],
    "joint": [
        "--model.losses={cross_entropy: 1.0}", _ALONE, "--model.options={new: 18, experts: 3}",
        "--data.session_classes=18", "--data.exemplars=20",
    ],
}  # fmt: skip
"""Options of `geomoe fit` by which an arm differs from the configuration."""
Right = dict[str, bool]
"""Whether each test image, by its name, was answered right."""


def network(arm: str, seed: int, given: argparse.Namespace) -> list[Right]:
    """Train what is not there yet; what was right after each session."""
    found, before = [], []
    for session in range(1, 2 if arm == "joint" else SESSIONS + 1):
        out = given.out / f"{arm}_{seed}" / str(session)
        steps = given.steps * (SESSIONS if arm == "joint" else 1)
        last, resumed = out / "last.safetensors", []
        if last.exists():
            resumed = [f"--ckpt_path={out / 'last.ckpt'}"]
        if not last.exists() or read_card(last).recipe["steps"] < steps:
            fit(
                [
                    "--config=ucmerced_amoed", f"--data.root={given.data}", f"--seed_everything={seed}",
                    f"--data.session={session}", f"--trainer.max_steps={steps}",
                    f"--checkpoint.dirpath={out}", f"--trainer.default_root_dir={out}",
                    f"--trainer.logger.init_args.save_dir={out}", "--trainer.accelerator=cpu",
                    *ARMS[arm], *before, *resumed,
                ]
            )  # fmt: skip
        before = [f"--model.start={last}"]
        items = geomoe.evaluate(geomoe.load(str(last)), given.data).by_item
        found.append({name: bool(scores["oa"]) for name, scores in items.items()})
    return found


def forest(seed: int, given: argparse.Namespace) -> list[Right]:
    """The same of a forest, which knows of old classes the exemplars alone."""
    found = []
    for session in range(1, SESSIONS + 1):
        data = IncrementalData(str(given.data), session=session, session_classes=CLASSES)
        task = Incremental("amoed", classes=data.classes, options={"new": CLASSES})
        task.shares = data.shares
        options = {"n_estimators": 500, "class_weight": "balanced_subsample"}
        fitted = fit_estimator("random_forest", "colours", options, seed, task, data.samples("fit"))
        items = score_samples(task, data.samples("test"), fitted).by_item
        found.append({name: bool(scores["oa"]) for name, scores in items.items()})
    return found


def matrix(after: Sequence[Right], session: dict[str, int]) -> torch.Tensor:
    """``[S, S]``, or ``[1, S]`` of one session: accuracies after each on the classes of each."""
    rows = []
    for right in after:
        of = torch.tensor([session[name.partition("/")[0]] for name in right])
        rows.append(of_sessions(torch.tensor(list(right.values())), of, SESSIONS))
    return torch.stack(rows).nan_to_num(0.0)


def table(found: dict[str, list[list[Right]]], session: dict[str, int]) -> list[list[str]]:
    """A row of words for each arm; means over seeds."""
    upper = found.get("joint")
    reference = None if upper is None else torch.stack([matrix(of, session)[0] for of in upper]).mean(0)
    rows, first = [], next(iter(found))
    for arm, seeds in found.items():
        last = np.array([[float(right) for _, right in sorted(of[-1].items())] for of in seeds])
        interval = mean_interval(last)
        row = [arm, f"{interval.mean:.3f} ± {interval.half:.3f}"]
        if arm != first:
            ours = [[float(right) for _, right in sorted(of[-1].items())] for of in found[first]]
            apart = mean_interval(last - np.array(ours))
            row.append(f"{apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]")
        else:
            row.append("")
        all_of = [matrix(of, session) for of in seeds]
        if arm == "joint":
            of_each = torch.stack(all_of).mean(0)[0]
            rows.append([*row, *(f"{value:.3f}" for value in of_each), *["–"] * 4])
            continue
        row += [f"{value:.3f}" for value in torch.stack(all_of).mean(0)[-1]]
        for metric in (lambda m: average_accuracy(m).mean(), forgetting, backward_transfer):
            row.append(f"{torch.stack([metric(m) for m in all_of]).mean():.3f}")
        row.append(
            "–"
            if reference is None
            else f"{torch.stack([intransigence(m, reference) for m in all_of]).mean():.3f}"
        )
        rows.append(row)
    return rows


HEADS = [
    "arm", "final accuracy", "to the first", "session 1", "session 2", "session 3", "mean over sessions",
    "forgetting", "backward transfer", "intransigence",
]  # fmt: skip


def main() -> None:
    """Train, score, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/incremental"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=610, help="of a session")
    given = parser.parse_args()
    session = {name: i // CLASSES for i, name in enumerate(class_names(given.data)[: SESSIONS * CLASSES])}
    found: dict[str, list[list[Right]]] = {
        arm: [forest(seed, given) if arm == "forest" else network(arm, seed, given) for seed in given.seeds]
        for arm in given.arms
    }
    lines = [["arm", "seed", "session", "image", "right"]]
    for arm, seeds in found.items():
        for seed, after in zip(given.seeds, seeds, strict=True):
            for number, right in enumerate(after, 1):
                lines += [[arm, str(seed), str(number), name, str(int(was))] for name, was in right.items()]
    given.out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with atomic_write(given.out / "scores.csv") as file:
        file.write(text.getvalue().encode())
    print(" | ".join(HEADS))
    for row in table(found, session):
        print(" | ".join(row))


if __name__ == "__main__":
    main()
