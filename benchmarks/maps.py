"""Seconds of a map of classes by each small system, beside its dense twin of equal active cost, in one run.

    python benchmarks/maps.py --side 1024

The networks are those of the configurations that ship, with random weights: time does not depend on them
but for what a router sends where. Both run in turns through ``geomoe predict``, reading and writing included,
and the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from geomoe.configs import shipped
from geomoe.models import create_model
from geomoe.models.weights import Card, save
from geomoe.pipeline import Request
from geomoe.pipeline.run import carry_out
from planned_memory import write_scene
from tile import hardware

TWO_DATES = ("change_", "burns_")
"""How configurations begin whose scenes are of two dates."""
COLOURS = ("dubai_", "fields_", *TWO_DATES)
"""How those begin whose scenes are of red, green and blue."""


def network(config: str) -> tuple[str, dict[str, Any]]:
    """Name and options of the network that a configuration trains."""
    given = yaml.safe_load(shipped()[config].read_text())
    model, data = given["model"]["init_args"], given["data"]["init_args"]
    classes = ("other", data["against_rest"]) if data.get("against_rest") else tuple("abcde")
    options = {"bands": 3, "classes": classes, **model.get("options", {})}
    if config.startswith(TWO_DATES):
        options |= {"bands": 6, "classes": ("unchanged", "changed"), "sensors": {"before": 3, "after": 3}}
    return model["model"], options


def written(path: Path, name: str, options: dict[str, Any]) -> int:
    """Random weights in a file; how many."""
    model = create_model(name, **options)
    said = {"radiometry": "unit", "degradation": "", "protocol": "", "commit": "", "date": "", "licence": ""}
    card = Card(
        model=name, config=asdict(model.config), data={}, recipe={}, scores={}, task="segmentation", **said
    )  # type: ignore[arg-type]
    save(path, model, card)
    return sum(p.numel() for p in model.parameters())


def compared(config: str, side: int, rounds: int) -> dict[str, float | str]:
    """Medians of one system and of its twin, in turns."""
    name, options = network(config)
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        write_scene(scene, options["bands"], side)
        files = {kind: Path(folder) / f"{kind}.safetensors" for kind in ("none", "active")}
        numbers = {kind: written(file, name, {**options, "twin": kind}) for kind, file in files.items()}
        seconds: dict[str, list[float]] = {kind: [] for kind in files}
        for _ in range(rounds):
            for kind, file in files.items():
                start = time.perf_counter()
                target = Path(folder) / "map.tif"
                carry_out(Request(scene, target, model=str(file), scale=None, overwrite=True))
                seconds[kind].append(time.perf_counter() - start)
    found, twin = median(seconds["none"]), median(seconds["active"])
    return {
        "system": name, "parameters": numbers["none"], "seconds": round(found, 2),
        "twin_seconds": round(twin, 2), "ratio": round(found / twin, 2),
    }  # fmt: skip


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [config for config in shipped("segmentation") if config.startswith(COLOURS)]
    parser.add_argument("--configs", nargs="+", default=known, choices=known)
    parser.add_argument("--side", type=int, default=1024, help="of the scene, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for config in args.configs:
        rows.append(compared(config, args.side, args.rounds))
        if not args.json:
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    about = {"side": args.side, "hardware": hardware(), "date": datetime.now(UTC).date().isoformat()}
    print(json.dumps({"systems": rows, **about}, indent=2) if args.json else f"{about}")


if __name__ == "__main__":
    main()
