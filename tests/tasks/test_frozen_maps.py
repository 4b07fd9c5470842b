"""Systems on a frozen base, from the file to a map: trained, resumed, scored, run on a scene."""

import json
import re

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.models import load
from geomoe.tasks.fit import fit

SMALL = {"land_moe": "{window: 4, ranks: [2, 4], tokens: 8}", "mslora_net": "{window: 4, rank: 2, width: 16}"}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Two images of each of eight places: buildings are brighter than land, and roads darker."""
    root, rng = tmp_path_factory.mktemp("tiles") / "dubai", np.random.default_rng(0)
    for place in range(1, 9):
        (root / f"tile{place}").mkdir(parents=True)
        for i in (1, 2):
            mask = np.kron(rng.integers(1, 4, (6, 6), dtype=np.uint8), np.ones((16, 16), np.uint8))
            shade = np.array([0, 200, 120, 40])[mask] + rng.normal(0, 15, mask.shape)
            image = np.stack([shade, 0.9 * shade, 0.8 * shade], 2).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / f"tile{place}" / f"{i:03}.jpg")
            Image.fromarray(mask).save(root / f"tile{place}" / f"{i:03}_mask.png")
    return root


def train(model, root, out, *more, steps=12):
    fit(
        [
            f"--config=dubai_{model}", f"--data.root={root}", "--data.patch=32", "--data.batch_size=2",
            "--data.steps_per_epoch=6", f"--model.options={SMALL[model]}", "--model.learning_rate=3e-3",
            f"--trainer.max_steps={steps}", f"--checkpoint.dirpath={out}", "--ema.decay=0",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(SMALL))
def test_from_the_file_to_a_map(model, tiles, tmp_path, capsys):
    train(model, tiles, tmp_path / "run")
    weights = str(tmp_path / "run" / "best.safetensors")
    trained, base = load(weights).model, load("base_t").model
    held = trained.base.state_dict()
    assert all(torch.equal(held[name], value) for name, value in base.state_dict().items())

    scores = {}
    for name, more in (("as it is", []), ("shifted", ["--other-sensor"])):
        capsys.readouterr()
        main(["evaluate", "--model", weights, "--data", str(tiles), "--json", "-", *more])
        scores[name] = json.loads(capsys.readouterr().out)
    assert set(scores["as it is"]["by_item"]) <= {f"tile{k}/00{i}.jpg" for k in (6, 7, 8) for i in (1, 2)}
    assert (scores["as it is"]["degradation"], scores["shifted"]["degradation"]) == ("", "as another sensor")
    assert scores["as it is"]["overall"] != scores["shifted"]["overall"]

    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=90, height=70, count=3, dtype="uint8"
    ) as file:
        file.write(np.random.default_rng(1).integers(1, 255, (3, 70, 90), dtype=np.uint8))
    main(["predict", str(tmp_path / "scene.tif"), str(tmp_path / "map.tif"), "--model", weights])
    with rasterio.open(tmp_path / "map.tif") as file:
        found = file.read(1)
    assert found.shape == (70, 90)
    assert 1 <= found.min() <= found.max() <= len(trained.config.classes)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(SMALL))
def test_a_resumed_run_ends_with_the_same_weights(model, tiles, tmp_path):
    train(model, tiles, tmp_path / "whole")
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    train(model, tiles, tmp_path / "cut", *stop)
    train(model, tiles, tmp_path / "cut", f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / name / "last.safetensors")) for name in ("whole", "cut"))
    assert whole.hash == cut.hash


@pytest.mark.parametrize("model", sorted(SMALL))
def test_a_base_with_random_weights_is_refused(model, tiles, tmp_path):
    with pytest.raises(GeomoeError, match=re.escape("--model.start")):
        train(model, tiles, tmp_path / "run", "--model.start=null")
