"""Pictures of labels and of maps: truth, answers, and what experts did."""

import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from geomoe.cli.main import main
from geomoe.evaluation import sample_picture
from geomoe.evaluation.expert_maps import ExpertMap, shared_by_experts, why_no_map
from geomoe.evaluation.figures import write_figure
from geomoe.models.registry import build
from geomoe.models.weights import save
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from tests.evaluation.test_calibrate_samples import CLASSES, TINY, card_of


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            values = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def cube(tmp_path):
    """Half field, half sea, in three bands of small numbers."""
    labels = np.ones((24, 24), np.uint8)
    labels[:, 12:] = 2
    data = np.random.default_rng(0).normal(labels[..., None], 0.2, (24, 24, 5)).astype(np.float32)
    np.savez(tmp_path / "place.npz", cube=data, labels=labels)
    return tmp_path / "place.npz"


FACTS = {"bands": 5, "classes": ("class 1", "class 2"), "mean": (1.5,) * 5, "std": (0.5,) * 5}


def maps(path, model, name):
    shares = {"split": "blocks", "block": 6, "buffer": 1, "validation": 0.2, "test": 0.4, "left_out": None}
    recipe = {**shares, "split_seed": 0, "images": "images", "masks": "masks", "ignored": 0}
    data = {"classes": {"class 1": 9, "class 2": 9}}
    said = {"config": vars(model.config), "data": data, "recipe": recipe, "radiometry": "values"}
    save(path, model, card_of(name, "segmentation", **said))


def labels(folder, name="vmoe_ti"):
    model = build(name, TINY)
    data = {"classes": dict.fromkeys(CLASSES, 20)}
    card = card_of(name, "classification", config=vars(model.config), data=data, recipe={"size": 16})
    save(folder / f"{name}.safetensors", model, card)
    return str(folder / f"{name}.safetensors")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    found = []

    def keep(make, target):
        write_figure(lambda: found.append(make()) or found[-1], target)

    monkeypatch.setattr(sample_picture, "write_figure", keep)
    return found


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title))


def test_labels_stand_beside_their_truth_and_the_squares_of_experts(folder, tmp_path, drawn, capsys):
    weights = [labels(tmp_path), labels(tmp_path, "vit_ti")]
    out, models = tmp_path / "p.png", [word for one in weights for word in ("--model", one)]
    main(["picture", str(folder), *models, "-o", str(out), "--samples", "4", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["data"], found["split"]) == ("data", "test")
    assert [of["truth"] for of in found["samples"].values()] == ["field", "field", "sea", "sea"]
    (figure,) = drawn
    for name, of in found["samples"].items():
        answer = of["answers"]["vmoe_ti"]
        said = "right" if answer["label"] == of["truth"] else "wrong"
        assert f"vmoe_ti {said}: {answer['label']} {answer['confidence']:.1%}" in texts(figure)
        assert 0.5 <= answer["confidence"] <= 1, "of two classes"
        assert answer["experts"]["unit"] == "cell"
        assert sum(answer["experts"]["shares"].values()) == pytest.approx(1)
        assert of["answers"]["vit_ti"]["experts"] == {"none": "routes nothing"}
        (axes,) = (one for one in figure.axes if one.get_label() == f"experts: {name}: vmoe_ti")
        picture = np.asarray(axes.images[0].get_array())
        assert picture.shape == (16, 16, 3)
        squares = picture.reshape(4, 4, 4, 4, 3)
        assert (squares == squares[:, :1, :, :1]).all(), "one expert for each token of 4 x 4 pixels"
    with Image.open(out) as image:
        assert image.width > 400


def test_maps_stand_beside_their_truth_and_the_experts_of_pixels(cube, tmp_path, drawn, capsys):
    model = build("unet_spatial_moe", {**FACTS, "width": 4, "depth": 1, "experts": 3})
    maps(tmp_path / "w.safetensors", model, "unet_spatial_moe")
    out = ["-o", str(tmp_path / "p.pdf")]
    main(["picture", str(cube), "--model", str(tmp_path / "w.safetensors"), *out, "--json"])
    found = json.loads(capsys.readouterr().out)
    (figure,) = drawn
    shown = {axes.get_label(): axes for axes in figure.axes}
    image, truth, answer, experts = (
        np.asarray(shown[label].images[0].get_array())
        for label in ("image: place", "truth: place", "w: place", "experts: place: w")
    )
    assert image.shape == truth.shape == answer.shape == experts.shape == (24, 24, 3)
    hidden = (image == 255).all(-1)
    assert hidden.any(), "what is for training is not shown"
    assert (answer[hidden] == 255).all()
    assert not (answer[~hidden] == 255).all(-1).any()
    assert {tuple(colour) for colour in truth[:, :12].reshape(-1, 3)} & {
        tuple(colour) for colour in truth[:, 12:].reshape(-1, 3)
    } == {(255, 255, 255)}
    (of,) = found["samples"].values()
    assert f"OA {of['answers']['w']['scores']['oa']:.4f}" in texts(figure)
    assert of["answers"]["w"]["experts"]["unit"] == "pixel"
    assert "bands 5, 3, 1 are red, green, blue" in figure.texts[0].get_text()


def test_squares_of_experts_are_those_of_the_model_on_an_image_of_any_size(tmp_path, drawn):
    labels = np.ones((25, 21), np.uint8)
    labels[:, 11:] = 2
    data = np.random.default_rng(0).normal(labels[..., None], 1, (25, 21, 5)).astype(np.float32)
    np.savez(tmp_path / "place.npz", cube=data, labels=labels)
    torch.manual_seed(0)
    options = {"width": 4, "depth": 1, "experts": 3, "experts_in": "bottom"}
    model = build("unet_spatial_moe", FACTS | options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # as built, all experts are alike to the router
    maps(tmp_path / "w.safetensors", model, "unet_spatial_moe")
    main(["picture", str(tmp_path / "place.npz"), "--model", str(tmp_path / "w.safetensors"), "-o",
          str(tmp_path / "p.png")])  # fmt: skip
    (axes,) = (one for one in drawn[0].axes if one.get_label() == "experts: place: w")
    picture = np.asarray(axes.images[0].get_array())[:24, :20]
    squares = picture.reshape(12, 2, 10, 2, 3)
    whole = (squares == squares[:, :1, :, :1]).all((1, 3, 4)) | (squares == 255).all(-1).any((1, 3))
    assert whole.all(), "2 x 2 pixels have an expert, or lie at the border of what is shown"
    assert len(np.unique(squares[:, 0, :, 0].reshape(-1, 3), axis=0)) > 2


def test_a_map_shows_what_is_said_of_pixels_without_a_class_too(cube, tmp_path, drawn, capsys):
    with np.load(cube) as found:
        known = np.where(np.arange(24)[:, None] % 6 < 3, found["labels"], 0)
        np.savez(cube, cube=found["cube"], labels=known)
    model = build(
        "hyper_trans_xnet", {**FACTS, "patch": 3, "width": 4, "blocks": 1, "heads": 2, "reduced": 3}
    )
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0]))
    maps(tmp_path / "w.safetensors", model, "hyper_trans_xnet")
    main(["picture", str(cube), "--model", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "p.pdf")])
    capsys.readouterr()
    shown = {
        axes.get_label(): np.asarray(axes.images[0].get_array()) for axes in drawn[0].axes if axes.images
    }
    seen = ~(shown["image: place"] == 255).all(-1)
    assert (known[seen] == 0).any()
    assert len(np.unique(shown["w: place"][seen], axis=0)) == 1, "the second class everywhere"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--crop", "0,0,8,8"], "vmoe_ti is of classification, which has no crops"),
        (["--layer", "7"], "no model routes in 7 layers"),
        (["--model", "mfg_hmoe_light"], "the weights are of classification and super_resolution"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line(folder, tmp_path, capsys, more, said):
    with pytest.raises(SystemExit) as stop:
        main(["picture", str(folder), "--model", labels(tmp_path), "-o", str(tmp_path / "p.png"), *more])
    assert stop.value.code == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "p.png").exists()


def test_few_experts_of_one_group_have_a_hue_each():
    def hues(*sizes):
        colours = ExpertMap(1, 1, "pixel", sizes, None, np.zeros((1, 1), np.int64)).colours
        return colours, len(np.unique(colours, axis=0))

    assert hues(8)[1] == 8
    assert not np.array_equal(hues(4)[0], hues(2, 2)[0])
    white = ExpertMap(1, 1, "pixel", (2,), None, np.array([[0, -1]])).picture
    assert torch.equal(torch.from_numpy(white[0, 1]), torch.full((3,), 255, dtype=torch.uint8))


def test_experts_of_a_whole_image_share_it_by_their_weights():
    def plan(*weights):
        gates = torch.tensor([weights])
        return RoutingPlan(torch.arange(len(weights))[None], gates, gates, gates.log(), (len(weights),), (1,))

    trace = RoutingTrace([plan(0.5, 0.3, 0.2)])
    assert why_no_map(torch.nn.Identity(), trace, -1, 4, 10) == ""
    assert shared_by_experts(trace, -1, 4, 10).tolist() == [[0] * 5 + [1] * 3 + [2] * 2] * 4
    alike = RoutingTrace([plan(0.25, 0.25, 0.25, 0.25)])
    assert why_no_map(torch.nn.Identity(), alike, -1, 4, 10) == "weighs all experts alike"


def test_things_have_an_outline_where_others_begin():
    numbers = np.zeros((6, 9), int)
    numbers[1:5, 1:4], numbers[1:5, 4:8] = 1, 2  # which touch
    white = np.full((6, 9, 3), 255, np.uint8)
    black = (sample_picture._outlined(white, [numbers, numbers.T]) == 0).all(2)
    assert black[1:5].astype(int).tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 1, 0], [0, 1, 0, 0, 1, 0, 0, 1, 0],
        [0, 1, 0, 0, 1, 0, 0, 1, 0], [0, 1, 1, 1, 1, 1, 1, 1, 0],
    ]  # fmt: skip
    assert not black[[0, 5]].any()
    assert (sample_picture._outlined(white, []) == white).all()


def test_a_picture_of_a_model_that_knows_instances_draws_them(tmp_path, drawn):
    mask = np.full((32, 32), 2, np.uint8)
    mask[4:14, 4:14] = mask[18:28, 18:28] = 1
    for i in range(4):
        Image.fromarray(mask).save(tmp_path / f"{i}_mask.png")
        Image.fromarray(mask[..., None].repeat(3, 2) * 90).save(tmp_path / f"{i}.png")
    options = {
        "classes": ("class 1", "class 2"),
        "width": 8,
        "layers": 1,
        "heads": 2,
        "window": 2,
        "hidden": 8,
    }
    model = build("mfiae", options)
    shares = {"split": "images", "block": 1, "buffer": 0, "validation": 0.25, "test": 0.25, "left_out": None}
    recipe = {**shares, "split_seed": 0, "images": "images", "masks": "masks", "ignored": 0}
    said = {"config": vars(model.config), "data": {"classes": {"class 1": 9, "class 2": 9}}, "recipe": recipe}
    card = card_of("mfiae", "segmentation", **said)
    save(tmp_path / "m.safetensors", model, card)
    main(
        ["picture", str(tmp_path), "--model", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "p.pdf")]
    )
    (figure,) = drawn
    (truth,) = (axes for axes in figure.axes if axes.get_label().startswith("truth: "))
    black = (np.asarray(truth.images[0].get_array()) == 0).all(2)
    assert black.sum() == 2 * 36, "the outlines of both squares"
