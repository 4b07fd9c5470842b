"""Segmentation: from a cube or images with masks to weights whose card says what their pixels are."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.legend import IGNORED
from geomoe.layers.pixel_losses import cross_entropy, dice, smoothed
from geomoe.models import load
from geomoe.models.contract import Input
from geomoe.moe.plan import RoutingTrace
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.fit import fit
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData

MODEL = "{width: 8, depth: 1, experts: 2}"


def cube(path, side=48, bands=5):
    """Stripes of three classes that their spectra tell apart, and one in four pixels that nobody knows."""
    rng = np.random.default_rng(0)
    labels = (np.arange(side)[:, None] // 4 + np.arange(side) // 8) % 3 + 1
    spectra = rng.integers(1000, 5000, (4, bands))
    values = spectra[labels] + rng.normal(0, 150, (side, side, bands))
    labels = np.where(rng.random((side, side)) < 0.25, 0, labels)
    np.savez(path, cube=values.astype(np.uint16), labels=labels.astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return cube(tmp_path_factory.mktemp("cube") / "stripes.npz")


def train(root, out, *more, steps=12):
    fit(
        [
            "--config=indian_pines_unet_spatial_moe", f"--data.root={root}", "--data.block=8",
            "--data.patch=12", "--data.batch_size=4", "--data.steps_per_epoch=4",
            f"--trainer.max_steps={steps}", f"--model.options={MODEL}", "--model.learning_rate=1e-2",
            f"--checkpoint.dirpath={out}",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train(
        made,
        out,
        "--data.names=[oats, wheat, woods]",
        "--model.losses={cross_entropy: 1.0, dice: 0.5}",
        steps=40,
    )
    return out


def test_weights_know_their_classes_and_beat_the_largest(run):
    loaded = load(str(run / "best.safetensors"))
    card, output = loaded.card, loaded.contract.outputs["classes"]
    assert (card.task, card.radiometry) == ("segmentation", "values")
    assert (output.classes, len(set(output.colours))) == (("oats", "wheat", "woods"), 3)
    assert loaded.contract.inputs == {"image": Input(5)}
    assert list(card.data["classes"]) == list(output.classes)
    assert (card.recipe["split"], card.recipe["block"], card.recipe["buffer"]) == ("blocks", 8, 2)
    assert {"oa", "aa", "kappa", "miou", "mf1", "gain", "scored"} == set(card.scores)
    assert card.scores["oa"] > 0.7
    assert all(1000 < mean < 5000 for mean in loaded.model.config.mean)
    with pytest.raises(GeomoeError, match="gives a map of 3 classes; expected weights of a model that gives"):
        load(str(run / "best.safetensors"), gives="image")


def test_weights_are_scored_on_the_part_that_was_held_out(run, made, capsys):
    main(["evaluate", "--model", str(run / "best.safetensors"), "--data", str(made.parent), "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    data = SegmentationData(str(made), block=8, names=["oats", "wheat", "woods"])
    [image] = data._held
    counts = torch.bincount(image.classes("test")[image.classes("test") != IGNORED].long())
    assert [of["items"] for of in found["by_class"].values()] == counts.tolist()
    scores = found["overall"]["scores"]
    assert scores["oa"] == pytest.approx(found["by_item"]["stripes"]["oa"])
    assert found["overall"]["baseline"]["oa"] == pytest.approx(
        counts[data.shares.index(max(data.shares))] / counts.sum()
    )
    each = [of["scores"] for of in found["by_class"].values()]
    assert scores["miou"] == pytest.approx(np.mean([of["iou"] for of in each]))
    assert scores["aa"] == pytest.approx(np.mean([of["accuracy"] for of in each]))


def test_a_resumed_run_ends_with_the_same_numbers(made, tmp_path):
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    train(made, tmp_path / "whole", steps=8)
    train(made, tmp_path / "cut", *stop, steps=8)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 4
    torch.rand(7)
    train(made, tmp_path / "cut", f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}", steps=8)
    whole, cut = (load(str(tmp_path / name / "last.safetensors")) for name in ("whole", "cut"))
    assert whole.hash == cut.hash
    assert whole.card.scores == cut.card.scores


def folder(root, count=4, side=20):
    rng = np.random.default_rng(0)
    for place in ("a", "b", "c"):
        (root / place).mkdir(parents=True)
        for i in range(count):
            mask = rng.integers(0, 3, (side, side + i), dtype=np.uint8)
            Image.fromarray(mask).save(root / place / f"{i}_mask.png")
            Image.fromarray(np.stack([mask * 100] * 3, 2)).save(root / place / f"{i}.png")
    return root


def test_a_folder_that_is_left_out_is_what_is_tested_on(tmp_path):
    data = SegmentationData(str(folder(tmp_path)), split="folder", left_out="b", names=["land", "water"])
    assert (data.bands, data.classes, data.radiometry) == (3, ("land", "water"), "unit")
    parts = {one.name: np.unique(one.places.parts).tolist() for one in data._held}
    assert {name for name, [part] in parts.items() if part == 2} == {f"b/{i}.png" for i in range(4)}
    batches = data.held_out(0, 1)
    assert {tuple(batches[i]["image"].shape[:3]) for i in range(len(batches))} == {(1, 3, 20)}
    assert len(batches) == 2
    sample = data.stream(0, 1, 0, 1)[0]
    assert sample["image"].shape == (3, 32, 32)  # larger than the images
    assert 0 < sample["valid"].sum() < 32 * 32
    known = sample["mask"] != IGNORED
    torch.testing.assert_close(sample["image"][0][known], (sample["mask"][known] + 1) * 100 / 255)


def test_several_folders_may_be_left_out_but_not_all(tmp_path):
    root = str(folder(tmp_path))
    data = SegmentationData(root, split="folder", left_out=["a", "b"])
    parts = {one.name[0] for one in data._held if (one.places.parts == 2).all()}
    assert parts == {"a", "b"}
    with pytest.raises(GeomoeError, match="no folder 'd' can be left out; there are: a, b, c"):
        SegmentationData(root, split="folder", left_out=["a", "d"]).shares  # noqa: B018
    with pytest.raises(GeomoeError, match="all folders are left out"):
        SegmentationData(root, split="folder", left_out=["a", "b", "c"]).shares  # noqa: B018


def test_one_class_of_coarser_images_is_scored_as_it_was_trained(tmp_path, capsys):
    root = folder(tmp_path / "data")
    train(
        root, tmp_path / "run", "--data.split=folder", "--data.left_out=[a, b]", "--data.reduce=2",
        "--data.against_rest=class 2", "--data.patch=8", steps=4,
    )  # fmt: skip
    loaded = load(str(tmp_path / "run" / "last.safetensors"))
    assert loaded.contract.outputs["classes"].classes == ("other", "class 2")
    assert loaded.card.data["dtypes"] == ["uint8"]
    assert (loaded.card.recipe["reduce"], loaded.card.recipe["left_out"]) == (2, ["a", "b"])
    main(
        [
            "evaluate",
            "--model",
            str(tmp_path / "run" / "last.safetensors"),
            "--data",
            str(root),
            "--json",
            "-",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert set(found["by_class"]) == {"other", "class 2"}
    assert set(found["by_item"]) == {f"{place}/{i}.png" for place in "ab" for i in range(4)}


@pytest.mark.parametrize(("classes", "by"), [(("other", "road"), "f1"), (("a", "b", "c"), "oa")])
def test_the_best_weights_are_by_what_is_looked_for(classes, by):
    task = Segmentation("unet", classes=classes, options={"width": 4, "depth": 1})
    assert task.chosen_by == by
    assert by in task.metrics()


@pytest.mark.parametrize("split", ["pixels", "images"])
def test_any_split_is_for_any_images(tmp_path, split):
    data = SegmentationData(str(folder(tmp_path)), split=split)
    assert sum(data.shares) == sum(int((one.classes("fit") >= 0).sum()) for one in data._held) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "images"}, "a cube is one image; choose blocks, columns or pixels"),
        ({"split": "folder"}, "left_out=None"),
        ({"left_out": "a"}, "left_out='a'"),
        ({"names": ["one"]}, "1 names of classes for masks that hold 3"),
        ({"validation": 0.8}, "less than 1"),
        ({"patch": 0}, "data.patch=0"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(made, options, said):
    with pytest.raises(GeomoeError, match=said):
        SegmentationData(str(made), **options).classes  # noqa: B018


def test_ignored_pixels_enter_no_loss():
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 4, 5, 6, requires_grad=True), torch.randint(4, (3, 5, 6))
    truth[0, :, 3:] = IGNORED
    truth[2] = IGNORED
    for loss in (cross_entropy, smoothed, dice):
        found = loss(logits, truth)
        (gradient,) = torch.autograd.grad(found, logits)
        assert not gradient.permute(0, 2, 3, 1)[truth == IGNORED].any()
        assert gradient[1].any()
        alone = [loss(logits[:1, :, :, :3], truth[:1, :, :3]), loss(logits[1:2], truth[1:2])]
        torch.testing.assert_close(found, sum(alone) / 3)
    by_hand = torch.nn.functional.cross_entropy(logits[1:2], truth[1:2])
    torch.testing.assert_close(cross_entropy(logits[1:2], truth[1:2]), by_hand)
    even = -logits[1:2].log_softmax(1).mean()
    torch.testing.assert_close(smoothed(logits[1:2], truth[1:2]), 0.95 * by_hand + 0.05 * even)


def test_dice_at_known_values():
    truth = torch.tensor([[[0, 0], [1, IGNORED]]])
    sure = torch.tensor([[[[9.0, 9], [-9, 9]], [[-9, -9], [9, -9]]]]) * 9
    assert dice(sure, truth) == pytest.approx(0, abs=1e-6)
    assert dice(-sure, truth) == pytest.approx(1, abs=1e-6)
    assert dice(torch.zeros(1, 2, 2, 2), truth) == pytest.approx(1 - (2 * 1 / 3.5 + 2 * 0.5 / 2.5) / 2)


def test_pixels_that_are_not_valid_enter_no_metric():
    task = Segmentation("unet", classes=("a", "b"), options={"width": 4, "depth": 1}, shares=(3.0, 1.0))
    valid = torch.tensor([[[True, True, False, False]]])
    batch = {"image": torch.zeros(1, 3, 1, 4), "mask": torch.tensor([[[0, 1, 1, 1]]]), "valid": valid}
    base = task.baseline(batch)
    metrics = task.metrics()
    metrics.update(base, task.truth(batch))
    assert metrics.compute()["oa"] == 0.5
    assert task.by_item(base, batch)["oa"].tolist() == [0.5]


def test_items_weigh_as_many_pixels_as_have_a_truth():
    """So that their mean is the accuracy of all pixels, and what has no truth weighs nothing."""
    task = Segmentation("unet", bands=2, classes=("a", "b"), shares=(1, 1), options={"width": 4, "depth": 1})
    batch = {
        "image": torch.zeros(3, 2, 4, 4),
        "mask": torch.stack([torch.full((4, 4), IGNORED), torch.zeros(4, 4).long(), torch.ones(4, 4).long()]),
    }
    batch["mask"][2, 1:] = IGNORED
    answer = torch.zeros(3, 2, 4, 4)
    answer[:, 0] = 1
    sizes, found = task.sizes(batch), task.by_item(answer, batch)["oa"]
    assert sizes.tolist() == [0, 16, 4]
    metrics = task.metrics()
    metrics.update(answer, batch["mask"])
    assert float((found * sizes)[1:].sum() / sizes.sum()) == pytest.approx(float(metrics.compute()["oa"]))


def test_a_model_brings_losses_of_its_own():
    """MambaMoE's is of what it says at three sizes: without it the coarse heads do not learn."""
    options = {"width": 8, "inner": (2, 2, 2, 2), "state": 4, "head": 8}
    batch = {"image": torch.rand(1, 3, 16, 16), "mask": torch.randint(0, 3, (1, 16, 16))}
    for losses, learns in (
        ({"cross_entropy": 1.0, "uncertain_labels": 1.0}, True),
        ({"cross_entropy": 1.0}, False),
    ):
        task = Segmentation("mamba_moe", classes=("a", "b", "c"), options=options, losses=losses)
        terms = task.losses(batch, RoutingTrace())
        assert terms.keys() == losses.keys()
        torch.stack(list(terms.values())).sum().backward()
        assert (task.model.heads[2].out.weight.grad is not None) == learns
    with pytest.raises(GeomoeError, match=r"there are: cross_entropy, smoothed, dice, .*uncertain_labels$"):
        Segmentation("mamba_moe", options=options, losses={"l2": 1.0})
    with pytest.raises(
        GeomoeError,
        match=r"there are: cross_entropy, smoothed, dice, hard_pixels, lovasz, boundary, \w+, \w+, \w+$",
    ):
        Segmentation("unet", losses={"uncertain_labels": 1.0})
