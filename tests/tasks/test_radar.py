"""Images of several sensors are labelled: who is told which there are, from the folder to the card."""

import pytest
import torch

import geomoe
from geomoe import GeomoeError
from geomoe.data.radar import RADARS, TARGETS, make_radar
from geomoe.models import load
from geomoe.tasks.classification import Classification
from geomoe.tasks.classification_data import ClassificationData
from geomoe.tasks.fit import fit
from tests.tasks.test_classification import classes


def test_a_known_data_set_says_its_sensors_and_others_are_told(tmp_path):
    make_radar(tmp_path / "made", train=120, test=6)
    assert ClassificationData(str(tmp_path / "made"), size=16).sensors == RADARS
    folder = classes(tmp_path / "classes", count=2)
    assert ClassificationData(str(folder)).sensors == {}
    assert ClassificationData(str(folder), sensors={"a": 1, "b": 2}).sensors == {"a": 1, "b": 2}
    with pytest.raises(GeomoeError, match=r"data.sensors=.*3 in all"):
        ClassificationData(str(folder), sensors={"a": 1, "b": 1})


def test_noise_is_another_one_each_time_and_of_one_sensor(tmp_path):
    folder = classes(tmp_path / "classes", count=4)
    options = {
        "size": 8,
        "sensors": {"a": 1, "b": 2},
        "turned": False,
        "steps_per_epoch": 64,
        "batch_size": 4,
    }
    plain = ClassificationData(str(folder), **options)
    noisy = ClassificationData(str(folder), noisy=0.5, **options)
    assert (plain.recipe.get("noisy"), noisy.recipe["noisy"]) == (None, 0.5)
    length = 256
    once, other = (data.stream(0, length, 0, 1) for data in (plain, noisy))
    again = noisy.stream(0, length, 0, 1)
    changed, seen = [], set()
    for i in range(length):
        image = other[i]["image"]
        assert torch.equal(image, again[i]["image"]), "noise depends on the number of the sample alone"
        assert other[i]["label"] == once[i]["label"]
        differs = (image != once[i]["image"]).flatten(1).any(1).tolist()
        assert differs in ([False] * 3, [True, False, False], [False, True, True])
        changed.append(any(differs))
        if changed[-1]:
            assert 0 <= image.min() <= image.max() <= 1
            seen.add(image.numpy().tobytes())
    assert len(seen) == sum(changed)
    assert 0.4 < sum(changed) / length < 0.6
    with pytest.raises(GeomoeError, match=r"data.noisy=0.5: images are of one sensor"):
        ClassificationData(str(folder), noisy=0.5)
    with pytest.raises(GeomoeError, match=r"data.noisy=2"):
        ClassificationData(str(folder), **{**options, "noisy": 2})


def test_models_of_several_sensors_are_told_which_there_are():
    options = {"embed_dim": 8, "depth": 1, "heads": 2}
    task = Classification("radar_fusion", classes=TARGETS, sensors=RADARS, options=options)
    assert task.model.config.sensors == RADARS
    present = torch.ones(2, 3, 4, 4, dtype=torch.bool)
    batch = {"image": torch.rand(2, 3, 4, 4), "label": torch.zeros(2).long(), "present": present}
    assert task.given(batch).keys() == {"present"}
    assert task.predict(batch).shape == (2, 6)
    plain = Classification("vit_ti", classes=TARGETS, sensors=RADARS, options={"embed_dim": 12, "depth": 1})
    assert plain.given(batch) == {}


@pytest.mark.slow
def test_the_configuration_that_ships_trains_and_its_card_says_the_radars(tmp_path):
    make_radar(tmp_path / "made", train=120, test=12)
    out = tmp_path / "run"
    fit(
        [
            "--config=radar_fusion", f"--data.root={tmp_path / 'made'}", "--data.steps_per_epoch=4",
            "--trainer.max_steps=4", "--model.options={embed_dim: 8, depth: 1, heads: 2}",
            f"--checkpoint.dirpath={out}", f"--trainer.default_root_dir={out}", "--trainer.accelerator=cpu",
            f"--trainer.logger.init_args.save_dir={out}",
        ]
    )  # fmt: skip
    loaded = load(str(tmp_path / "run" / "last.safetensors"))
    assert loaded.contract.sensors == RADARS
    named = ClassificationData.named(tmp_path / "made", "test", loaded)
    assert (named.data, len(named.samples)) == ("radar_targets", 12)
    one = geomoe.evaluate(loaded, tmp_path / "made", without=["isar", "micro_doppler"])
    assert one.degradation == "without isar, micro_doppler"
    with pytest.raises(GeomoeError, match="no sensor 'sonar'"):
        geomoe.evaluate(loaded, tmp_path / "made", without=["sonar"])
