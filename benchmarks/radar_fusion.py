"""Three radars, each alone and fused: accuracy and weights, where one of them is noise and where none is.

Of targets that were trained on, with ``--part train``, it tells whether noise was learned by heart.

geomoe data radar_targets --make radar_targets
geomoe fit --config radar_fusion --data.root radar_targets
python benchmarks/radar_fusion.py runs/radar_fusion/best.safetensors radar_targets
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from geomoe.data.radar import noise_of
from geomoe.data.split import Split
from geomoe.evaluation.samples import batches
from geomoe.layers.evidential import expected
from geomoe.models import load
from geomoe.moe import RoutingTrace
from geomoe.tasks.classification_data import ClassificationData


def main(weights: str, root: Path, part: Split) -> None:
    """Print a table of the targets of a part, by which radar is noise."""
    loaded = load(weights)
    radars = list(loaded.contract.sensors)
    right: list[Tensor] = []  # of each sample: every radar, their mean, the fusion
    shares: list[Tensor] = []
    spoilt: list[str | None] = []
    for names, batch in batches(ClassificationData.named(root, part, loaded).samples):
        trace = RoutingTrace()
        with torch.inference_mode():
            found = loaded.model.answers(batch["image"], trace)  # type: ignore[operator]
        each = expected(found["alpha"])  # [B, S, K]
        said = torch.cat([each, each.mean(1, keepdim=True), found["label"][:, None]], 1)
        right.append(said.argmax(-1) == batch["label"][:, None])
        shares.append(trace[-1].gates)
        spoilt += map(noise_of, names)
    correct, gates = torch.cat(right).float(), torch.cat(shares)
    print(f"{'noise in':<15}{'targets':>8}  " + "".join(f"{name:>15}" for name in (*radars, "even", "fused")))
    groups = {"none": [None], "one": radars, **{name: [name] for name in radars}}
    for group, names in groups.items():
        rows = torch.tensor([name in names for name in spoilt])
        values = correct[rows].mean(0).tolist()
        print(f"{group:<15}{int(rows.sum()):>8}  " + "".join(f"{value:>15.3f}" for value in values))
        print(f"{'  weight':<25}" + "".join(f"{value:>15.3f}" for value in gates[rows].mean(0).tolist()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights")
    parser.add_argument("root", type=Path)
    parser.add_argument("--part", choices=["train", "validation", "fit", "test"], default="test")
    given = parser.parse_args()
    main(given.weights, given.root, given.part)
