"""Models that know instances: their quality is shown beside that of classes."""

import json

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


def test_others_have_none():
    task = Segmentation(model="unet", classes=("house", "ground"), options={"width": 4, "depth": 1})
    assert task.instance_metrics() is None
