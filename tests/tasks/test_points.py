"""SparseFormer, as its configuration trains it: from points to weights that draw maps."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.models import load
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.fit import fit

SMALL = (
    "{stem: 1, widths: [8, 16], blocks: 1, rates: [1, 2], decoder: 16, width: 16, depth: 2, heads: 2, "
    "window: 4, dilations: [1, 2], rounds: 3}"
)


def folder(root):
    """Two towns of two images: ground, and three houses of two kinds, which colours tell apart."""
    rng = np.random.default_rng(0)
    colours = np.array([[120, 110, 90], [200, 60, 50], [60, 80, 200]])
    for town in ("a", "b"):
        (root / town).mkdir(parents=True)
        for number in range(3):
            mask = np.zeros((48, 48), np.uint8)
            places = rng.permutation([(3, 4), (26, 5), (6, 28), (27, 26)])
            for kind, (y, x) in zip((1, 2, 1, 2), places, strict=True):
                mask[y : y + 14, x : x + 15] = kind
            image = colours[mask] + rng.normal(0, 12, (48, 48, 3))
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / town / f"{number}.png")
            Image.fromarray(mask + 1).save(root / town / f"{number}_mask.png")
    return root


def train(root, out, steps, *more):
    fit(
        [
            "--config=dubai_sparse_former", f"--data.root={root}", "--data.left_out=[b]", "--data.reduce=1",
            "--data.validation=0.34", "--data.patch=32", "--data.steps_per_epoch=20",
            f"--trainer.max_steps={steps}", f"--model.options={SMALL}", "--model.learning_rate=4e-3",
            f"--checkpoint.dirpath={out}", f"--trainer.logger.init_args.save_dir={out}",
            f"--trainer.default_root_dir={out}", "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


@pytest.mark.slow
def test_points_are_enough_for_maps(tmp_path, capsys):
    root = folder(tmp_path / "towns")
    train(root, tmp_path / "run", 60)
    said = capsys.readouterr().err
    assert "10 pixels with a class to train on" in said, "four houses and the ground, of two images"
    assert "geomoe: stage points, steps 1 to 15\n" in said
    assert "geomoe: stage labels, steps 16 to 60\n" in said
    weights = tmp_path / "run" / "best.safetensors"
    card = load(str(weights)).card
    assert (card.recipe["points"], card.recipe["left_out"]) == (50, ["b"])
    assert card.scores["oa"] > 0.85, "where the largest class has .64"
    main(["evaluate", "--model", str(weights), "--data", str(root)])
    assert "over the largest class" in capsys.readouterr().out
    scene, made = tmp_path / "scene.tif", tmp_path / "map.tif"
    with Image.open(root / "b" / "0.png") as image, Image.open(root / "b" / "0_mask.png") as mask:
        image.save(scene)
        truth = np.asarray(mask)
    main(["predict", str(scene), str(made), "--model", str(weights)])
    with rasterio.open(made) as found:
        assert (found.read(1) == truth).mean() > 0.8


@pytest.mark.slow
def test_a_training_goes_on_where_it_was(tmp_path):
    root = folder(tmp_path / "towns")
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    short = "--data.steps_per_epoch=6"
    train(root, tmp_path / "whole", 12, short)
    train(root, tmp_path / "cut", 12, short, *stop)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 6
    train(root, tmp_path / "cut", 12, short, f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / name / "last.safetensors")) for name in ("whole", "cut"))
    assert whole.hash == cut.hash


def test_a_control_without_experts_has_its_option(tmp_path):
    with pytest.raises(GeomoeError, match="choose active"):
        train(folder(tmp_path / "towns"), tmp_path / "run", 2, "--model.options.twin=gated")
