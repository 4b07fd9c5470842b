"""U-MoE Mamba, as its configuration trains it on made fields."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from geomoe.cli.main import main
from geomoe.data.fields import make_fields
from geomoe.models import load
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.fit import fit


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "fields"
    make_fields(folder, number={"train": 8, "test": 2, "late": 2})
    return folder


def train(root, out, steps, epoch, *more):
    fit(
        [
            "--config=fields_umoe_mamba", f"--data.root={root}", "--data.patch=48",
            f"--data.steps_per_epoch={epoch}", f"--trainer.max_steps={steps}", "--model.learning_rate=1e-2",
            "--model.options={widths: [8, 12], scan: 4, state: 4}", f"--checkpoint.dirpath={out}",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


@pytest.mark.slow
def test_heads_are_found(fields, tmp_path, capsys):
    train(fields, tmp_path, 40, 40)
    weights = str(tmp_path / "best.safetensors")
    card = load(weights).card
    assert card.scores["oa"] > 0.85
    assert card.scores["gain"] > 0.1, "over soil everywhere"
    main(["evaluate", "--model", weights, "--data", str(fields), "--json", str(tmp_path / "s.json")])
    scored = json.loads((tmp_path / "s.json").read_text())
    assert sorted(scored["by_item"]) == ["late/000.png", "late/001.png", "test/000.png", "test/001.png"]
    scene, made = tmp_path / "scene.tif", tmp_path / "map.tif"
    with (
        Image.open(fields / "test" / "000.png") as image,
        Image.open(fields / "test" / "000_mask.png") as mask,
    ):
        image.save(scene)
        truth = np.asarray(mask)
    main(["predict", str(scene), str(made), "--model", weights])
    with rasterio.open(made) as found:
        assert (found.read(1) - 1 == truth).mean() > 0.85


@pytest.mark.slow
def test_a_training_goes_on_where_it_was(fields, tmp_path):
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    train(fields, tmp_path / "whole", 6, 3)
    train(fields, tmp_path / "cut", 6, 3, *stop)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 3
    train(fields, tmp_path / "cut", 6, 3, f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / name / "last.safetensors")) for name in ("whole", "cut"))
    assert whole.hash == cut.hash
