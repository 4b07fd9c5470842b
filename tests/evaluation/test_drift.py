"""Drift: a sensor that changed is found, and what is of one kind stays silent at the stated rate."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from geomoe import GeomoeError, create_model
from geomoe.cli.main import main
from geomoe.evaluation.calibrate import calibrate
from geomoe.evaluation.drift import find_drift, learn_drift, place_of, shifts_of, statistics_of
from geomoe.evaluation.update import compare_weights
from geomoe.models import load
from geomoe.models.drift import DriftReference
from geomoe.models.weights import save
from tests.evaluation.test_benchmark_twins import card_of

CLASSES = ("field", "town")


def scene(rng, side=16):
    """Three bands of one brightness and some colour, coarse."""
    grey = gaussian_filter(rng.normal(0, 1, (side, side, 1)), (2, 2, 0)) * 60 + rng.normal(120, 15)
    return (grey + np.array([10, 0, -25]) + rng.normal(0, 5, (side, side, 3))).clip(0, 255).astype(np.uint8)


def sample(rng, change=lambda image: image):
    return {"image": torch.from_numpy(change(scene(rng))).permute(2, 0, 1)}


def samples(seed, number=40, change=lambda image: image):
    rng = np.random.default_rng(seed)
    return [(f"{i}.png", sample(rng, change)) for i in range(number)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Weights whose card has a reference of 40 samples."""
    torch.manual_seed(0)
    net = create_model("vmoe_ti", classes=CLASSES, embed_dim=12, depth=2, heads=2, patch=4, experts=3)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    card = replace(card_of(net, "vmoe_ti"), data={"classes": dict.fromkeys(CLASSES, 10)})
    save(path, net, card)
    reference = learn_drift(load(str(path)), samples(1), "40 samples")
    save(path, net, replace(card, drift=reference.for_card()))
    return load(str(path))


def test_statistics_are_of_bands_and_of_experts(model):
    image = torch.zeros(3, 8, 8)
    image[0] = torch.linspace(0, 1, 64).view(8, 8)
    image[1] = 1 - image[0]
    found = statistics_of(model, {"image": image}, None)
    assert found["band 1 mean"] == pytest.approx(0.5)
    assert found["bands 1 and 2 correlation"] == pytest.approx(-1)
    assert found["bands 2 and 3 correlation"] == 0, "of a band without values that differ"
    experts = [value for name, value in found.items() if name.startswith("layer 1")]
    assert len(experts) == 3
    assert sum(experts) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda image: (image * 1.3).clip(0, 255).astype(np.uint8), "band 1 mean"),
        (lambda image: (image + 40.0).clip(0, 255).astype(np.uint8), "band 2 mean"),
        (lambda image: image[..., ::-1].copy(), "band 3 mean"),
    ],
    ids=["gain", "offset", "order of bands"],
)
def test_a_sensor_that_changed_is_found(model, change, name):
    drift = find_drift(model, iter(samples(2, change=change)))
    assert name in {shift.name for shift in drift.alarms}
    assert drift.line.startswith("DRIFT: ")
    assert json.dumps(drift.as_dict())


def test_what_is_of_one_kind_stays_silent(model):
    drift = find_drift(model, iter(samples(3)))
    assert not drift.alarms
    assert drift.line.startswith("no drift: 40 samples against 40, ")
    assert "at most 0.01 of runs without drift give an alarm" in drift.line


@pytest.mark.parametrize(("old", "new"), [(30, 8), pytest.param(60, 60, marks=pytest.mark.slow)])
def test_alarms_without_drift_are_as_rare_as_stated(old, new):
    """Of statistics that hang together, some of which tie, with two regions of the new samples."""
    rng, alarms, runs, level = np.random.default_rng(6), 0, 300, 0.1
    mix = rng.normal(size=(4, 6))
    for _ in range(runs):
        every = rng.normal(size=(old + new, 4)) @ mix + rng.normal(size=(old + new, 6))
        every[:, 4:] = every[:, 4:] > 0
        reference = DriftReference(tuple("abcdef"), torch.tensor(every[:old]), None, "")
        later = every[old:]
        groups = {"all": later, "north": later[: new // 2 + 1], "south": later[new // 2 :]}
        alarms += shifts_of(groups, reference)[0].p < level
    # Three standard deviations above the stated rate.
    assert alarms / runs < level + 3 * np.sqrt(level * (1 - level) / runs)


def test_where_one_region_alone_changed_it_is_named(model):
    darker = samples(4, 12, lambda image: image // 2)
    new = [(f"south/{name}", one) for name, one in darker] + samples(5, 30)
    drift = find_drift(
        model, iter(new), lambda name: ("region 10S 60W",) if "south" in name else ("region 50N",)
    )
    assert drift.samples == {"all": 42, "region 10S 60W": 12, "region 50N": 30}
    assert {shift.group for shift in drift.alarms} >= {"region 10S 60W"}
    assert "region 50N" not in {shift.group for shift in drift.alarms}


def test_a_reference_survives_the_card_and_damage_is_told(model):
    held = model.card.drift
    read = DriftReference.from_card(json.loads(json.dumps(held)))
    assert read.for_card() == held
    assert len(read.digest()) == 64
    for damaged in ({**held, "values": [[1.0]]}, {**held, "side": 0}, {"names": []}):
        with pytest.raises(ValueError, match="drift reference"):
            DriftReference.from_card(damaged)


def test_too_few_samples_and_cards_without_a_reference_are_told(model):
    assert learn_drift(model, samples(1, 9), "9 samples") is None
    with pytest.raises(GeomoeError, match="4 samples are too few"):
        find_drift(model, iter(samples(1, 4)))
    bare = replace(model, card=replace(model.card, drift={}))
    with pytest.raises(GeomoeError, match="no reference to tell drift by"):
        find_drift(bare, iter(samples(1)))
    four = [("x", {"image": torch.rand(3, 8, 8)})] * 6
    other = replace(model.card, drift={**model.card.drift, "names": ["x"], "values": [[0.0]] * 12})
    with pytest.raises(GeomoeError, match="of other bands or layers"):
        find_drift(replace(model, card=other), iter(four))


def folder(root, seed, number=12, change=lambda image: image):
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            Image.fromarray(change(scene(rng))).save(root / name / f"{i}.png")
    return root


def test_the_command_is_one_line_and_status_3_for_an_alarm(model, tmp_path, capsys):
    path = str(model.path)
    main(["monitor", str(folder(tmp_path / "same", 8)), "--model", path])
    assert capsys.readouterr().out.startswith("no drift: 24 samples")
    drifted = folder(tmp_path / "drifted", 9, change=lambda image: image // 2)
    with pytest.raises(SystemExit) as stop:
        main(["monitor", str(drifted), "--model", path, "--json", str(tmp_path / "found.json")])
    assert stop.value.code == 3
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("DRIFT: ")
    assert json.loads((tmp_path / "found.json").read_text())["drift"] is True


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "give --model WEIGHTS"),
        (["--before", "a"], "give --model WEIGHTS"),
        (["--model", "x", "--level", "2"], ""),
    ],
)
def test_bad_options_are_one_line_and_status_1(args, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["monitor", str(tmp_path), *args])
    assert stop.value.code == 1
    assert said in capsys.readouterr().err


def test_calibrate_writes_the_reference(tmp_path):
    root = folder(tmp_path / "data", 10, 140)
    net = create_model("vmoe_ti", classes=CLASSES, embed_dim=12, depth=2, heads=2, patch=4, experts=3)
    save(tmp_path / "w.safetensors", net, card_of(net, "vmoe_ti"))
    card = calibrate(tmp_path / "w.safetensors", tmp_path / "c.safetensors", root)
    reference = DriftReference.from_card(card.drift)
    assert reference.side is None, "labels are of whole images"
    assert len(reference.values) == 10
    assert asdict(load(str(tmp_path / "c.safetensors")).card) == asdict(card)


def test_region_and_month_are_read_where_they_stand(tmp_path):
    path = tmp_path / "S2A_20250714_x.tif"
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", transform=from_origin(-122.3, 37.9, 0.01, 0.01), **profile) as file:
        file.write(np.zeros((1, 8, 8), np.uint8))
    assert place_of(path) == ("region 30N 120W", "month 2025-07")
    assert place_of(tmp_path / "tile_123456789.png") == ()


def test_an_update_is_compared_by_folder_after_its_experts_are_matched(model, tmp_path, capsys):
    """The same network with its experts renumbered: nothing changes, and every row goes to the same one."""
    root, order = folder(tmp_path / "data", 11), torch.tensor([2, 0, 1])
    state = model.model.state_dict()
    for name, value in state.items():
        if ".moe." in name and value.shape[:1] == (3,):
            state[name] = value[order]
    turned = create_model("vmoe_ti", classes=CLASSES, embed_dim=12, depth=2, heads=2, patch=4, experts=3)
    turned.load_state_dict(state)
    save(tmp_path / "turned.safetensors", turned, model.card)
    update = compare_weights(model, load(str(tmp_path / "turned.safetensors")), root)
    names = [place.name for place in update.places]
    assert names == ["all", "folder field", "folder town"]
    assert {place.routing for place in update.places} == {1.0}
    assert {place.loads for place in update.places} == {0.0}
    assert not update.worse
    with torch.no_grad():
        turned.head.linear.bias += torch.tensor([50.0, -50.0]) * (1 if update.places[1].before < 0.5 else -1)
    save(tmp_path / "broken.safetensors", turned, model.card)
    after = ["--after", str(tmp_path / "broken.safetensors"), "--split", "train"]
    with pytest.raises(SystemExit) as stop:
        main(["monitor", str(root), "--before", str(model.path), *after, "--json", str(tmp_path / "u.json")])
    assert stop.value.code == 3
    assert "WORSE in" in capsys.readouterr().out
    assert json.loads((tmp_path / "u.json").read_text())["worse"]
