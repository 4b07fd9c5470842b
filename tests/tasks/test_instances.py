"""Models that know instances: their quality is shown beside that of classes."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomoe.cli.main import main
from geomoe.metrics.measures import measure
from geomoe.tasks.fit import fit
from geomoe.tasks.segmentation import Segmentation

SMALL = "{things: [house], least: 4, width: 8, layers: 1, heads: 2, window: 2, hidden: 8}"


@pytest.fixture
def town(tmp_path):
    """Bright squares, the houses, on dark ground."""
    rng = np.random.default_rng(0)
    root = tmp_path / "town"
    root.mkdir()
    for i in range(6):
        mask = np.full((32, 32), 2, np.uint8)
        for y, x in rng.integers(0, 24, (4, 2)):
            mask[y : y + 8, x : x + 8] = 1
        Image.fromarray(mask).save(root / f"{i}_mask.png")
        Image.fromarray(np.where(mask[..., None] == 1, 220, 40).repeat(3, 2).astype(np.uint8)).save(
            root / f"{i}.png"
        )
    return root


def test_panoptic_quality_is_shown_of_a_model_that_knows_instances(town, tmp_path, capsys):
    out = tmp_path / "run"
    fit(
        [
            "--config=dubai_mfiae", f"--data.root={town}", "--data.split=images", "--data.left_out=null",
            "--data.reduce=1", "--data.names=[house, ground]", "--data.validation=0.2", "--data.patch=32",
            "--data.batch_size=2", "--data.steps_per_epoch=3", "--trainer.max_steps=3",
            f"--model.options={SMALL}", f"--checkpoint.dirpath={out}", f"--trainer.default_root_dir={out}",
            f"--trainer.logger.init_args.save_dir={out}", "--trainer.accelerator=cpu",
        ]
    )  # fmt: skip
    capsys.readouterr()
    main(["evaluate", "--model", str(out / "last.safetensors"), "--data", str(town), "--json", "-"])
    scores = json.loads(capsys.readouterr().out)["overall"]["scores"]
    names = [f"{name}{of}" for of in ("", "_things", "_stuff") for name in ("pq", "sq", "rq")]
    assert set(names) <= set(scores)
    assert all(0 <= scores[name] <= 1 for name in names)
    assert scores["pq"] == pytest.approx((scores["pq_things"] + scores["pq_stuff"]) / 2)
    assert measure("pq_things").title == "PQ of things"


def street(path, seed):
    """Houses of all shades on dark ground, some of them close to each other; how many there are."""
    rng = np.random.default_rng(seed)
    image, mask, count = rng.normal(60, 8, (96, 96)), np.full((96, 96), 2, np.uint8), 0
    for y, x in product(range(4, 80, 30), range(2, 80, 24)):
        high, wide = rng.integers((14, 12), (25, 22))
        if rng.random() < 0.8:
            mask[y : y + high, x : x + wide] = 1
            image[y : y + high, x : x + wide] = rng.normal(rng.uniform(120, 230), 8, (high, wide))
            count += 1
    Image.fromarray(mask).save(path.with_name(f"{path.stem}_mask.png"))
    pixels = np.clip(image, 0, 255)[..., None].repeat(3, 2).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return count


@pytest.mark.slow
def test_things_are_learned_and_found_in_a_scene(tmp_path, capsys):
    pyogrio = pytest.importorskip("pyogrio")
    (tmp_path / "streets" / "town").mkdir(parents=True)
    for seed in range(24):
        street(tmp_path / "streets" / "town" / f"{seed:02}.png", seed)
    out = tmp_path / "mfiae" / "seed0"
    options = "{things: [house], least: 4, width: 16, layers: 1, heads: 2, window: 4, hidden: 16}"
    fit(
        [
            "--config=dubai_mfiae", f"--data.root={tmp_path / 'streets'}", "--data.split=images",
            "--data.left_out=null", "--data.reduce=1", "--data.names=[house, ground]",
            "--data.validation=0.2", "--data.patch=64", "--data.steps_per_epoch=100",
            "--trainer.max_steps=200", "--model.learning_rate=3e-3", f"--model.options={options}",
            f"--checkpoint.dirpath={out}", f"--trainer.default_root_dir={out}",
            f"--trainer.logger.init_args.save_dir={out}", "--trainer.accelerator=cpu",
        ]
    )  # fmt: skip
    weights = str(out / "best.safetensors")
    capsys.readouterr()
    main(["evaluate", "--model", weights, "--data", str(tmp_path / "streets"), "--json", "-"])
    scores = json.loads(capsys.readouterr().out)["overall"]["scores"]
    assert scores["pq_things"] > 0.7
    assert scores["rq_things"] > 0.9
    image = Image.open(tmp_path / "streets" / "town" / "00.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(tmp_path / "scene.tif")
    main(
        [
            "predict", str(tmp_path / "scene.tif"), str(tmp_path / "map.tif"), "--model", weights,
            "--instances", str(tmp_path / "i.tif"), "--vectors", str(tmp_path / "houses.gpkg"),
            "--class", "house", "--least", "60",
        ]
    )  # fmt: skip
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "houses.gpkg")
    instances = columns[list(meta["fields"]).index("instance")]
    assert len(set(instances)) == len(instances) == street(tmp_path / "again.png", 0)
    assert 0 not in instances
    script = Path(__file__).parents[2] / "benchmarks" / "instances.py"
    command = [sys.executable, str(script), str(tmp_path / "streets"), str(tmp_path / "mfiae")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == "arm | folder | things by | pq_things | sq_things | rq_things | off by"
    rows = [line.split(" | ") for line in said[1:-1]]
    assert {row[2] for row in rows} == {"centres", "pieces"}
    quality = {row[2]: float(row[3]) for row in rows}
    assert scores["pq_things"] - 1e-3 < quality["centres"] < 1, "which drops what is too small"
    assert 0.5 < quality["pieces"] < 1
    assert said[-1].startswith("truths: 0.00% of pixels farther than 64; median thing ")


def test_others_have_none():
    task = Segmentation(model="unet", classes=("house", "ground"), options={"width": 4, "depth": 1})
    assert task.instance_metrics() is None
