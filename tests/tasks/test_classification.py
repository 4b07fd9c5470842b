"""Classification: from folders of classes to weights whose card says what they label."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import geomoe
from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.models import load, read_card
from geomoe.models.contract import Input, Output
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.classification import Classification
from geomoe.tasks.classification_data import ClassificationData
from geomoe.tasks.fit import fit
from tests.scenes import pixels, write_scene

COLOURS = {"forest": (30, 90, 40), "river": (40, 60, 140), "town": (150, 140, 130)}
MODEL = (
    "{patch: 4, embed_dim: 16, depth: 2, heads: 2, sparse: every_2, experts: 3, "
    "router_options: {top_k: 2}, drop_path: 0.2}"
)


def classes(root, count=15, side=12):
    """Images of three classes that their colours tell apart."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(rng.normal(colour, 25, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return classes(tmp_path_factory.mktemp("classes"))


def train(folder, out, *more, steps=12):
    fit(
        [
            "--config=eurosat_vit", f"--data.root={folder}", "--data.size=12", "--data.batch_size=4",
            "--data.steps_per_epoch=4", f"--trainer.max_steps={steps}", f"--model.options={MODEL}",
            "--model.learning_rate=3e-3", f"--checkpoint.dirpath={out}",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", *more,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train(folder, out, "--model.balance=importance", "--ema.decay=0.5", steps=40)
    return out


def test_weights_know_their_classes_and_beat_the_largest(run):
    loaded = load(str(run / "best.safetensors"))
    card = loaded.card
    assert (card.task, card.protocol) == ("classification", "classification")
    names = tuple(COLOURS)
    assert loaded.contract.outputs == {"label": Output("label", 3, classes=names)}
    assert loaded.contract.inputs == {"image": Input(3, ("red", "green", "blue"))}
    assert card.data["dtypes"] == ["uint8"]
    assert card.data["classes"] == dict.fromkeys(names, 11)  # of 15 less 3 to test and 1 to validate
    assert card.recipe["size"] == 12
    assert card.scores["gain"] == pytest.approx(card.scores["oa"] - 1 / 3, abs=1e-3)
    assert card.scores["oa"] > 0.6
    assert {"oa", "aa", "f1", "kappa", "ece", "gain", "scored"} == set(card.scores)
    with pytest.raises(
        GeomoeError, match="gives a label of 3 classes; expected weights of a model that gives an"
    ):
        load(str(run / "best.safetensors"), gives="image")


def test_the_balance_of_vmoe_is_about_noise(folder, tmp_path):
    train(folder, tmp_path / "noise", "--model.balance=vmoe", steps=1)
    plain = MODEL.replace("drop_path", "router: switch, drop_path").replace("{top_k: 2}", "{}")
    with pytest.raises(GeomoeError, match=r"model.balance='load': .* without noise"):
        train(folder, tmp_path / "none", "--model.balance=load", f"--model.options={plain}", steps=1)


def test_a_drawn_split_is_found_again_by_the_card(folder, tmp_path):
    train(folder, tmp_path, "--data.split=images", "--data.test=0.4", "--data.split_seed=3", steps=4)
    loaded = load(str(tmp_path / "last.safetensors"))
    own = ClassificationData(str(folder), size=12, split="images", test=0.4, split_seed=3).samples("test")
    names = [name for name, _ in ClassificationData.named(folder, "test", loaded).samples]
    assert names == [name for name, _ in own.samples]
    assert len(names) == 18
    assert names != [name for name, _ in ClassificationData(str(folder), size=12).samples("test").samples]


def test_labels_have_no_scale(run):
    with pytest.raises(GeomoeError, match=r"gives a label of 3 classes; .* to make one 4 times as large"):
        load(str(run / "best.safetensors"), 4)


def test_training_says_on_what_and_where_the_weights_are(folder, tmp_path, capsys):
    train(folder, tmp_path, steps=4)
    first, *_, last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("geomoe: ")]
    kept = tmp_path / "best.safetensors"
    assert first == (
        f"geomoe: 33 images to train on, 3 images to validate on; weights are kept in {tmp_path}"
    )
    assert last == f"geomoe: the best weights are {kept}, the latest last.safetensors beside it"


def test_a_resumed_run_ends_with_the_same_numbers(folder, tmp_path):
    """With stochastic depth and a noisy router."""
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    train(folder, tmp_path / "whole")
    train(folder, tmp_path / "cut", *stop)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 4
    torch.rand(7)
    train(folder, tmp_path / "cut", f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / name / "last.safetensors")) for name in ("whole", "cut"))
    assert whole.hash == cut.hash
    assert whole.card.scores == cut.card.scores


def test_expert_maps_and_usage_of_tokens_are_logged(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(next(run.rglob("events.*")).parent))
    log.Reload()
    assert {"train/smoothed", "val/oa", "routing/0/load_2", "routing/router_gradient_norm"} <= set(
        log.Tags()["scalars"]
    )
    assert {"routing/0/experts", "routing/0/usage"} <= set(log.Tags()["images"])


def test_statistics_are_of_the_training_images_alone(tmp_path):
    classes(tmp_path, count=15)
    for path in sorted(tmp_path.rglob("*.png")):
        if int(path.stem) % 5 == 4:  # held out
            Image.new("RGB", (12, 12), (255, 255, 255)).save(path)
    data = ClassificationData(str(tmp_path), size=12)
    assert data.mean == pytest.approx([c / 255 for c in np.mean(list(COLOURS.values()), 0)], abs=0.03)
    assert max(data.std) < 0.25


def test_classes_that_are_not_alike_have_their_share_as_a_baseline(tmp_path):
    classes(tmp_path, count=15)
    for path in sorted((tmp_path / "river").iterdir())[5:]:
        path.unlink()
    data = ClassificationData(str(tmp_path), size=8)
    assert data.shares == (11.0, 3.0, 11.0)  # of 5 one to test and one to validate
    task = Classification(
        "vit_ti", classes=data.classes, shares=data.shares, mean=data.mean, std=data.std,
        options={"patch": 4, "embed_dim": 8, "depth": 1, "heads": 1},
    )  # fmt: skip
    base = task.baseline({"image": torch.zeros(2, 3, 8, 8)})
    torch.testing.assert_close(base, torch.tensor([[0.44, 0.12, 0.44]] * 2))


def test_metrics_are_of_probabilities_whatever_the_logits(folder):
    task = Classification("vit_ti", classes=("a", "b"), options={"embed_dim": 12, "depth": 1, "heads": 1})
    metrics = task.metrics()
    logits = torch.tensor([[0.2, 0.9], [0.9, 0.2]])  # that could be taken for probabilities
    metrics.update(task.answer(logits), torch.tensor([1, 1]))
    found = metrics.compute()
    assert found["oa"] == 0.5
    assert found["ece"] == pytest.approx(abs(0.5 - float(logits[0].softmax(0).max())), abs=1e-6)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.model=mfg_hmoe_light", "has no option 'classes'"),
        ("--model.options.router=best", "router='best': expected one of .*noisy_top_k"),
        ("--model.options.router_options={p: 1}", "noisy_top_k has no 'p'; it has: top_k"),
        ("--data.size=0", "data.size=0"),
        ("--model.losses={l1: 1.0}", "no loss is called 'l1'; there are: cross_entropy, smoothed"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(folder, tmp_path, option, said):
    with pytest.raises(GeomoeError, match=said):
        train(folder, tmp_path, option)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_class_path_leads_into_known_homes_alone(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(folder, tmp_path, "--model=subprocess.Popen")
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "subprocess" in line


def test_weights_are_scored_by_the_task_on_their_card(run, folder, capsys, tmp_path):
    weights = str(run / "best.safetensors")
    main(["evaluate", "--model", weights, "--data", str(folder), "--json", str(tmp_path / "found.json")])
    said = capsys.readouterr().out
    assert "best on 9 test samples of" in said
    assert "the largest class" in said
    assert all(name in said for name in (*COLOURS, "OA", "AA", "F1", "kappa", "ECE"))
    found = json.loads((tmp_path / "found.json").read_text())
    items = [item["oa"] for item in found["by_item"].values()]
    assert found["overall"]["scores"]["oa"] == pytest.approx(sum(items) / 9)
    assert "forest/04.png" in found["by_item"]
    assert found["overall"]["baseline"]["oa"] == pytest.approx(1 / 3)
    classes = [of["scores"]["accuracy"] for of in found["by_class"].values()]
    assert found["overall"]["scores"]["aa"] == pytest.approx(sum(classes) / 3)


def test_what_was_found_is_noted_on_the_card_once(run, folder, capsys, tmp_path):
    target = tmp_path / "noted.safetensors"
    asked = [
        "evaluate",
        "--model",
        str(run / "best.safetensors"),
        "--data",
        str(folder),
        "--card",
        str(target),
    ]
    main(asked)
    main([*asked, "--overwrite"])
    (one,) = read_card(target).evaluations
    assert (one.data, one.images, one.ranks, one.protocol) == (folder.name, 9, "oa", "classification")
    assert one.gain == pytest.approx(one.scores["oa"] - 1 / 3, abs=1e-4)
    assert f"{one.gain:+.4f}" in capsys.readouterr().out
    main(["models", str(target)])
    assert f"{one.gain:+.4f} over the baseline's 0.3333" in capsys.readouterr().out


def test_options_of_images_are_refused(run, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--model", str(run / "best.safetensors"), "--data", str(folder), "--conserve"])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "best is of classification, which has no conserve; leave it out" in line


def test_the_samples_can_be_said_to_be_others(run, folder, tmp_path):
    target, own = tmp_path / "noted.safetensors", ["--sensor", "naip", "--gsd", "1", "--name", "mine"]
    asked = ["--model", str(run / "best.safetensors"), "--data", str(folder), "--card", str(target)]
    main(["evaluate", *asked, *own])
    (one,) = read_card(target).evaluations
    assert (one.data, one.sensor, one.gsd) == ("mine", "naip", 1)


def test_what_bfloat16_costs_is_measured_of_every_task(run, folder, tmp_path, capsys):
    target = tmp_path / "noted.safetensors"
    asked = ["--model", str(run / "best.safetensors"), "--data", str(folder), "--card", str(target)]
    main(["evaluate", *asked, "--precision", "bfloat16"])
    card = read_card(target)
    assert card.measured == []
    assert card.bfloat16["low"] <= card.bfloat16["loss"] <= card.bfloat16["high"]
    assert 0 < card.bfloat16["largest"] < 50
    assert f"bfloat16 costs {card.bfloat16['loss']:.4f} against float32" in capsys.readouterr().out


def test_one_function_evaluates_every_task(run, folder):
    found = geomoe.evaluate(load(str(run / "best.safetensors")), folder, split="validation")
    assert (found.task, found.protocol, found.ranks, found.overall.items) == (
        "classification", "classification", "oa", 3
    )  # fmt: skip
    with pytest.raises(GeomoeError, match="has no degradation"):
        geomoe.evaluate(load(str(run / "best.safetensors")), folder, degradation="mtf")


def test_a_class_that_the_weights_do_not_know_is_named(run, tmp_path, capsys):
    classes(tmp_path)
    (tmp_path / "town").rename(tmp_path / "desert")
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", str(run / "best.safetensors"), "--data", str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert "is of a class that is not known, desert; there are: forest, river, town" in line


def test_export_puts_the_scores_of_the_test_on_the_card(run, folder, tmp_path, capsys):
    source, target = run / "best.safetensors", tmp_path / "out.safetensors"
    main(["export", str(source), str(target), "--data", str(folder), "--half"])
    before, card = read_card(source), read_card(target)
    assert card.scores["validation"] == before.scores
    assert card.scores["scored"] == f"9 test samples of {folder.name}"
    assert card.scores["gain"] == pytest.approx(card.scores["oa"] - card.scores["baseline"]["oa"], abs=1e-4)
    assert [one.images for one in card.evaluations] == [9]
    assert load(str(target)).contract == load(str(source)).contract
    assert f"OA {card.scores['gain']:+.4f} over the baseline on 9 test" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(
            [
                "export",
                str(source),
                str(tmp_path / "y.safetensors"),
                "--data",
                str(folder),
                "--protocol",
                "hsenet",
            ]
        )
    assert "best is of classification, which has no protocol; leave it out" in capsys.readouterr().err


def test_a_command_for_images_says_what_the_weights_give(run, tmp_path, capsys):
    scene = str(write_scene(run / "scene.tif", pixels(3, 8, 8, "uint8")))
    asked = [scene, str(tmp_path / "x.tif"), "--model", str(run / "best.safetensors"), "--scale", "4"]
    with pytest.raises(SystemExit) as stop:
        main(["upscale", *asked])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "gives a label of 3 classes; expected weights of a model that gives an image" in line
    assert not list(tmp_path.iterdir())


def test_adapters_learn_on_weights_that_stay(run, folder, tmp_path, capsys):
    """The network before them may have known other classes."""
    other = classes(tmp_path / "more", count=15)
    shutil.copytree(other / "town", other / "village")
    adapted = MODEL.replace("}, drop", "}, adapters: [2, 4], drop")
    start = run / "last.safetensors"
    train(other, tmp_path / "run", f"--model.options={adapted}", f"--model.start={start}")
    before, after = (
        load(str(path)).model.state_dict() for path in (start, tmp_path / "run/last.safetensors")
    )
    kept = [key for key in before if not key.startswith("head.")]
    assert all(torch.equal(before[key], after[key]) for key in kept)
    assert all(after[key].any() for key in after if key.endswith(".b"))
    assert after["head.linear.weight"].shape == (4, 16)
    main(["evaluate", "--model", str(tmp_path / "run/last.safetensors"), "--data", str(other)])
    with pytest.raises(GeomoeError, match=r"vit_ti keeps most of the weights .*; give --model.start"):
        train(other, tmp_path / "none", f"--model.options={adapted}")
    assert not (tmp_path / "none").exists()
