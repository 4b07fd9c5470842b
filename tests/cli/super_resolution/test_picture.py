"""``geomoe picture``, as a user runs it."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe.models.weights import save
from tests.cli.run import run
from tests.models.sizes import tiny
from tests.models.test_weights import card_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of a model that routes pixels and one that routes nothing."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, options in (("mfg_hmoe", {"base": "bicubic"}), ("edsr", {})):
        model = tiny(name, **options)
        save(folder / f"{name}.safetensors", model, replace(card_of(model), model=name))
    return folder


@pytest.fixture
def image(tmp_path):
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(small).resize((50, 41), Image.Resampling.BICUBIC).save(tmp_path / "field.jpg")
    return tmp_path / "field.jpg"


def picture(capsys, image, weights, *args, names=("mfg_hmoe", "edsr")):
    models = [arg for name in names for arg in ("--model", weights / f"{name}.safetensors")]
    return run(capsys, "picture", image, *models, "--scale", 2, "--device", "cpu", *args)


def test_a_picture_and_its_numbers(capsys, image, weights, tmp_path):
    out = tmp_path / "out.png"
    args = ("-o", out, "--crop", "4,4,20,24", "--crop", "30,10,16,12")
    status, said, heard = picture(capsys, image, weights, *args, "--json")
    assert status == 0, heard
    found = json.loads(said)
    assert (found["size"], found["crops"]) == ([50, 40], [[4, 4, 20, 24], [30, 10, 16, 12]])
    assert list(found["results"]) == ["bicubic", "mfg_hmoe", "edsr"]
    assert found["results"]["edsr"]["experts"] == {"none": "routes nothing"}
    assert sum(found["results"]["mfg_hmoe"]["experts"]["shares"].values()) == pytest.approx(1)
    with Image.open(out) as drawn:
        assert drawn.width > 1000
    assert picture(capsys, image, weights, *args)[0] == 1, "nothing is overwritten unasked"
    status, said, _ = picture(capsys, image, weights, *args, "--overwrite")
    assert status == 0
    for score in found["results"]["edsr"]["crops"]:
        assert f"{score['psnr']:.2f} dB {score['ssim']:.4f}" in said
    assert said.splitlines()[-1] == f"{out}: 2 crops, 2 models"


def test_an_image_as_input_has_no_scores(capsys, image, weights, tmp_path):
    args = ("-o", tmp_path / "out.png", "--no-truth")
    status, said, _ = picture(capsys, image, weights, *args, "--json", names=("edsr",))
    assert status == 0
    found = json.loads(said)
    assert found["size"] == [100, 82]
    assert found["protocol"] is found["results"]["edsr"]["whole"] is None
    assert picture(capsys, image, weights, *args, "--degradation", "bicubic")[0] == 2


def test_weights_of_one_name_are_told_apart_by_their_folders(capsys, image, weights, tmp_path):
    files = [tmp_path / run / "best.safetensors" for run in ("first", "second")]
    models = []
    for name, file in zip(("mfg_hmoe", "edsr"), files, strict=True):
        file.parent.mkdir()
        file.write_bytes((weights / f"{name}.safetensors").read_bytes())
        models += ["--model", file]
    status, said, _ = picture(capsys, image, weights, *models, "--json", "-o", tmp_path / "p.png", names=())
    assert status == 0
    assert json.loads(said)["results"].keys() == {"bicubic", "first/best", "second/best"}


BAD = {
    "no image": (("none.png", "-o", "out.png"), "none.png does not exist"),
    "no picture's name": (("field.jpg", "-o", "out.tif"), "must end in .png"),
    "no folder": (("field.jpg", "-o", "no/out.png"), "does not exist; make the folder"),
    "the image itself": (("field.png", "-o", "field.png", "--overwrite"), "image itself"),
    "no image inside": (("text.png", "-o", "out.png"), "is not an image"),
    "crop outside": (("field.jpg", "-o", "out.png", "--crop", "40,0,20,20"), "not inside .* 50 x 40"),
    "crop of words": (("field.jpg", "-o", "out.png", "--crop", "left"), "expected X,Y,W,H"),
    "no degradation": (("field.jpg", "-o", "out.png", "--degradation", "x"), "no degradation is called 'x'"),
    "no protocol": (("field.jpg", "-o", "out.png", "--protocol", "x"), "no protocol is called 'x'"),
    "no layer": (("field.jpg", "-o", "out.png", "--layer", "5"), "no model routes in 5 layers"),
    "one model twice": (
        ("field.jpg", "-o", "out.png", "--model", "W/edsr.safetensors"),
        "two panels .*/edsr'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(capsys, image, weights, tmp_path, monkeypatch, case):
    args, said = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("this is not an image\n")
    Image.open(image).save(tmp_path / "field.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    rest = [arg.replace("W/", f"{weights}/") for arg in args[1:]]
    status, out, err = picture(capsys, args[0], weights, *rest)
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("geomoe: error: ")
    assert re.search(said, lines[0]), lines[0]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_fills_leaves_the_old_picture(capsys, image, weights, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(self, file, **_):
        file.write(b"half of a pic")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    (tmp_path / "out.png").write_bytes(b"precious")
    status, _, err = picture(capsys, image, weights, "-o", tmp_path / "out.png", "--overwrite")
    assert status == 1
    assert "out.png cannot be written: No space left on device; " in err.splitlines()[-1]
    assert (tmp_path / "out.png").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["field.jpg", "out.png"]


def test_without_matplotlib_one_line_says_what_to_install(capsys, image, weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "geomoe.evaluation.figures", raising=False)
    status, _, err = picture(capsys, image, weights, "-o", tmp_path / "out.png")
    assert status == 1
    said = "geomoe: error: this command needs matplotlib; install it by: pip install 'geomoe[demo]'"
    assert err.splitlines() == [said]
