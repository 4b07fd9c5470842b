"""Plots of two sensors with crowns, from the folder to weights that are scored on what was held out."""

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.legend import IGNORED
from geomoe.models import load
from geomoe.tasks.fit import fit
from geomoe.tasks.segmentation_data import SegmentationData
from tests.data.made_plots import BANDS, NODATA, SIDE, plots, save


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return plots(tmp_path_factory.mktemp("plots"), 5)


def data(root, **options):
    return SegmentationData(str(root), **{"split": "images", "stems": 1, **options})


def test_the_folder_says_sensors_and_classes(root):
    found = data(root)
    assert found.sensors == {"hyperspectral": BANDS, "height": 1}
    assert (found.bands, found.radiometry) == (BANDS + 1, "values")
    assert found.classes == ("Acer rubrum", "Acer saccharum", "Pinus taeda")
    assert data(root, taxa="genus").classes == ("Acer", "Pinus")
    said = found.describe()
    assert (said["layout"], said["source"].endswith("CC BY 4.0")) == ("idtrees", True)
    assert (found.recipe["taxa"], found.recipe["stems"]) == ("species", 1)
    with pytest.raises(GeomoeError, match="has 0 classes of 400 trees or more"):
        data(root, stems=400).classes  # noqa: B018


def test_whole_plots_or_a_site_are_held_out(root):
    for options, of in (({}, None), ({"split": "folder", "left_out": "SOUTH"}, "SOUTH")):
        found = data(root, **options)
        names = {
            part: {name for name, _ in found.samples(part).samples} for part in ("fit", "validation", "test")
        }
        assert sum(map(len, names.values())) == len(set().union(*names.values())) == 10
        assert of is None or {name.split("/")[0] for name in names["test"]} == {of}
        assert of is None or len(names["test"]) == 5


def test_pixels_of_all_plots_may_be_dealt_by_chance(root):
    found = data(root, split="pixels")
    assert {len(found.samples(part).samples) for part in ("fit", "validation", "test")} == {10}


def test_what_a_sensor_lacks_is_in_no_statistics_and_said_of_samples(root, tmp_path):
    plots(tmp_path, 5)
    values = np.full((BANDS, SIDE, SIDE), NODATA, np.int16)
    save(tmp_path / "hsi" / "NORTH_0.tif", values, 0, 5000, NODATA)
    found, whole = data(tmp_path, split="pixels"), data(root, split="pixels")
    [sample] = [sample for name, sample in found.samples("fit").samples if name == "NORTH/NORTH_0"]
    assert sample["present"].flatten(1).any(1).tolist() == [False, True]
    assert sample["valid"].all()
    assert found.mean[0] == pytest.approx(whole.mean[0], rel=0.2)
    assert found.mean[BANDS] == whole.mean[BANDS]
    assert torch.equal(sample["image"][0], torch.full((SIDE, SIDE), found.mean[0]))
    assert set(sample["mask"].unique().tolist()) > {IGNORED}


def test_weights_are_scored_on_the_plots_that_were_held_out(root, tmp_path, capsys):
    options = "{patch: 3, filters: 2, width: 16, heads: 2, hidden: 16, experts: 2, dropout: 0.0}"
    fit(
        [
            "--config=idtrees_mixture_rs", f"--data.root={root}", "--data.stems=1", "--data.patch=3",
            "--data.batch_size=16", "--data.steps_per_epoch=20", "--trainer.max_steps=20",
            "--data.missing=0.2", f"--model.options={options}", "--model.learning_rate=1e-2",
            f"--checkpoint.dirpath={tmp_path}", f"--trainer.logger.init_args.save_dir={tmp_path}",
            f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu",
        ]
    )  # fmt: skip
    loaded = load(str(tmp_path / "last.safetensors"))
    assert loaded.contract.sensors == {"hyperspectral": BANDS, "height": 1}
    assert (loaded.card.recipe["taxa"], loaded.card.recipe["stems"]) == ("species", 1)
    assert loaded.card.scores["gain"] > 0
    main(["evaluate", "--model", str(tmp_path / "last.safetensors"), "--data", str(root)])
    said = capsys.readouterr().out
    assert "test samples of idtrees" in said
    assert "Acer saccharum" in said
