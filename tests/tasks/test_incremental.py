"""Learning in sessions: what each session sees, and a chain of trainings from weights to weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.satellites import SATELLITES
from geomoe.models import load
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.fit import fit
from geomoe.tasks.incremental import Incremental
from geomoe.tasks.incremental_data import IncrementalData

COLOURS = {"bay": (30, 60, 150), "field": (160, 150, 60), "forest": (30, 90, 40), "town": (150, 140, 130),
           "yard": (220, 40, 40)}  # fmt: skip
COUNT = 23  # of a class: 4 are tested on, 1 is validated on, six are taken by each satellite


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for i in range(COUNT):
            pixels = np.clip(rng.normal(colour, 25, (12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


def data(folder, **options):
    small = {"size": 12, "session_classes": 2, "exemplars": 2, "kept": 1, "batch_size": 4}
    return IncrementalData(str(folder), **{**small, **options})


def train(folder, out, *more, steps=8):
    fit(
        [
            "--config=ucmerced_amoed", f"--data.root={folder}", "--data.size=12", "--data.batch_size=4",
            "--data.session_classes=2", "--data.exemplars=2", "--data.kept=1", "--data.steps_per_epoch=2",
            "--model.options={new: 2, experts: 3, widths: [8, 12]}", f"--trainer.max_steps={steps}",
            f"--checkpoint.dirpath={out}", f"--trainer.logger.init_args.save_dir={out}",
            f"--trainer.default_root_dir={out}", "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


def test_every_class_and_satellite_has_as_many_exemplars(folder):
    second = data(folder, session=2)
    assert second.classes == ("bay", "field", "forest", "town")
    _, labels, given = second._of(second.subset)
    pairs = torch.bincount(labels * 3 + given["domain"], minlength=12)
    assert pairs.tolist() == [2] * 12


def test_exemplars_are_the_same_in_every_session(folder):
    first, second = data(folder), data(folder, session=2)
    images, labels, _ = first._of(first.subset)
    later, more, _ = second._of(second.subset)
    assert torch.equal(later[more < 2], images)
    assert torch.equal(more[more < 2], labels)


def test_of_old_classes_exemplars_alone_are_ever_seen(folder):
    second = data(folder, session=2)
    assert (second._taken[1][second._new] >= 2).all()
    seen = {image.numpy().tobytes() for image in second._of(torch.cat([second._new, second.subset]))[0]}
    old = {image.numpy().tobytes() for image in second._of((second._taken[1] < 2).nonzero()[:, 0])[0]}
    assert len(old) == 36
    assert len(old & seen) == 12
    assert second.counts == {"bay": 6, "field": 6, "forest": 15, "town": 15}


def test_what_experts_are_judged_by_nobody_learns_from(folder):
    second = data(folder, session=2)
    batches = list(second.once())
    labels, domain = (torch.cat([batch[key] for batch in batches]) for key in ("label", "domain"))
    assert torch.bincount(labels * 3 + domain, minlength=12).tolist() == [0] * 6 + [1] * 6
    assert not set(second._kept.nonzero()[:, 0].tolist()) & set(
        torch.cat([second._new, second.subset]).tolist()
    )


def test_before_the_last_stage_new_classes_are_served_and_from_it_on_the_subset(folder, monkeypatch):
    """The stream of a resumed training too, which begins in the middle."""
    monkeypatch.setattr("geomoe.tasks.incremental_data.Task", SimpleNamespace)
    second = data(folder, session=2)
    second.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(stages=SimpleNamespace(limits=lambda step: (6, 10))),
        max_steps=10, max_epochs=-1, accumulate_grad_batches=1, global_rank=0, world_size=1,
    )  # fmt: skip
    stream = second.stream(0, 40, 0, 1)
    labels = [int(stream[i]["label"]) for i in range(40)]
    assert min(labels[:24]) == 2, "six steps of four images"
    assert set(labels[24:36]) == {0, 1, 2, 3}
    later = second.stream(20, 20, 0, 1)
    assert [int(later[i]["label"]) for i in range(20)] == labels[20:]


def test_classes_are_drawn_evenly_where_that_is_asked(folder):
    stream = data(folder, session=2, draw="classes").stream(0, 4, 0, 1)
    assert stream.first.even
    assert stream.second.even


def test_images_are_taken_by_their_own_satellite_and_tested_by_one_that_is_not_seen(folder):
    first = data(folder)
    raw, (images, _, domain, _) = first._fit[0], first._taken
    for place in (0, 1, 2, 20):
        seen = SATELLITES[f"D{int(domain[place]) + 1}"](raw[place], place % 18)
        assert torch.equal(images[place], seen)
    name, sample = first.samples("test").samples[0]
    assert torch.equal(sample["image"], SATELLITES["D4"](read(folder / name), 0))
    assert not torch.equal(sample["image"], read(folder / name))


def read(path):
    return torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)


def test_statistics_stay_those_of_the_first_session(folder):
    assert data(folder, session=2).statistics == data(folder).statistics


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"session": 3}, "data.session=3: 5 classes are not enough for so many sessions of 2"),
        ({"session": 0}, "data.session=0"), ({"satellites": ["D1", "D7"]}, "no satellite is called 'D7'"),
        ({"satellites": []}, "data.satellites"), ({"unseen": "moon"}, "no satellite is called 'moon'"),
        ({"bands": 1}, "data.bands=1"), ({"sensors": {"a": 1, "b": 2}}, "data.sensors=.* expected none"),
        ({"session_classes": 1}, "data.session_classes=1"),
    ],
)  # fmt: skip
def test_bad_options_are_named(folder, options, said):
    with pytest.raises(GeomoeError, match=said):
        data(folder, **options)


def test_too_few_images_are_said(folder):
    with pytest.raises(
        GeomoeError, match=r"6 images to train on; data.exemplars=6 and data.kept=1 want more"
    ):
        data(folder, exemplars=6).subset  # noqa: B018


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_chain_of_sessions_is_trained_resumed_and_evaluated(folder, tmp_path, capsys):
    train(folder, tmp_path / "1")
    said = capsys.readouterr().err
    assert "stage experts, steps 1 to 5" in said
    assert "stage student, steps 6 to 8" in said
    second = ("--data.session=2", f"--model.start={tmp_path / '1' / 'last.safetensors'}")
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=-1")  # fmt: skip
    train(folder, tmp_path / "2", *second)
    train(folder, tmp_path / "cut", *second, *stop)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 2
    train(folder, tmp_path / "cut", *second, f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / run / "last.safetensors")) for run in ("2", "cut"))
    assert whole.hash == cut.hash
    card = whole.card
    assert (card.task, card.recipe["session"], card.recipe["unseen"]) == ("incremental", 2, "D4")
    assert whole.model.confidence.usual.all(), "experts were calibrated"
    capsys.readouterr()
    weights = str(tmp_path / "2" / "last.safetensors")
    main(["evaluate", "--model", weights, "--data", str(folder), "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    assert found["overall"]["items"] == 4 * 4, "classes of later sessions are not asked for"
    assert list(found["by_class"]) == ["bay", "field", "forest", "town"]


@pytest.mark.slow
def test_a_run_that_ends_before_its_first_validation_keeps_its_weights(folder, tmp_path):
    train(folder, tmp_path, "--data.steps_per_epoch=50", steps=4)
    assert load(str(tmp_path / "last.safetensors")).card.recipe["steps"] == 4


def test_a_later_session_wants_the_weights_of_the_one_before(folder, tmp_path):
    with pytest.raises(GeomoeError, match=r"give --model\.start"):
        train(folder, tmp_path, "--data.session=2")
    with pytest.raises(GeomoeError, match=r"give --trainer\.max_steps, without max_epochs"):
        train(folder, tmp_path, "--trainer.max_epochs=3")


def test_a_model_is_told_what_it_is_told_in_other_classification_too():
    base = {"embed_dim": 8, "depth": 1, "heads": 2, "patch": 4}
    task = Incremental("dmrs", classes=("a", "b"), options={"base": base}, losses={"diversity": 1.0})
    batch = {"image": torch.rand(2, 3, 8, 8), "label": torch.tensor([0, 1]), "domain": torch.tensor([0, 0])}
    assert task.train().given(batch).keys() == {"truth"}
