"""``geomoe convert``, as a user runs it, and what the other commands make of the result."""

import json

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geomoe.models.published import to_published
from geomoe.models.published.hat import HAT
from tests.cli.run import run
from tests.models.sizes import tiny
from tests.scenes import pixels, write_scene


@pytest.fixture
def checkpoint(tmp_path):
    """What BasicSR would save of a small HAT, and the network."""
    model = tiny("hat").eval()
    torch.save({"params_ema": to_published(HAT, model)}, tmp_path / "hat.pth")
    return model, tmp_path / "hat.pth"


def test_a_published_checkpoint_is_used_like_weights_of_ours(capsys, checkpoint, tmp_path):
    model, source = checkpoint
    target = tmp_path / "hat.safetensors"
    told = ("--source", "https://example.org/hat.pth", "--licence", "Apache-2.0")
    status, said, heard = run(capsys, "convert", source, target, *told)
    assert status == 0, heard
    assert said == f"{target}: hat_s x2, 3 bands, from HAT as published\n"

    status, said, _ = run(capsys, "models", target, "--json")
    assert json.loads(said)["recipe"]["entry"] == "params_ema"

    scene = write_scene(tmp_path / "scene.tif", pixels(3, 12, 9, "uint8"))
    status, _, heard = run(
        capsys, "upscale", scene, tmp_path / "out.tif", "--scale", 2, "--model", target, "--device", "cpu"
    )
    assert status == 0, heard
    with rasterio.open(scene) as before, rasterio.open(tmp_path / "out.tif") as after:
        x = torch.from_numpy(before.read()).float()[None] / 255
        with torch.inference_mode():
            wanted = (model(x)[0] * 255).clamp(0, 255).round().numpy()
        assert np.abs(after.read() - wanted).max() <= 1
    assert "verified" in run(capsys, "verify", tmp_path / "out.tif", "--weights", target)[1]

    (tmp_path / "images").mkdir()
    Image.fromarray(pixels(3, 40, 40, "uint8").transpose(1, 2, 0)).save(tmp_path / "images" / "a.png")
    asked = ("--model", target, "--scale", 2, "--device", "cpu")
    status, said, heard = run(capsys, "evaluate", *asked, "--data", tmp_path / "images")
    assert status == 0, heard
    assert "hat" in said
    status, _, heard = run(
        capsys, "export", target, tmp_path / "e.safetensors", "--data", tmp_path / "images"
    )
    assert status == 1
    assert "not known; 'geomoe evaluate --degradation NAME'" in heard
    image, out = tmp_path / "images" / "a.png", tmp_path / "picture.png"
    status, _, heard = run(capsys, "picture", image, *asked, "-o", out)
    assert status == 0, heard
    assert out.exists()


def test_options_that_no_tensor_tells_are_given_by_name(capsys, checkpoint, tmp_path):
    target = tmp_path / "hat.safetensors"
    given = ("--option", "border=published", "--option", "mean=[0.25]")
    status, _, heard = run(capsys, "convert", checkpoint[1], target, *given)
    assert status == 0, heard
    config = json.loads(run(capsys, "models", target, "--json")[1])["config"]
    assert (config["border"], config["mean"]) == ("published", [0.25])
    status, _, heard = run(capsys, "convert", checkpoint[1], target, "--overwrite", "--option", "border")
    assert status == 2
    assert "NAME=VALUE" in heard


def test_what_is_refused_is_said_in_one_line(capsys, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    status, said, heard = run(capsys, "convert", tmp_path / "whole.pth", tmp_path / "w.safetensors")
    assert (status, said) == (1, "")
    assert heard.startswith("geomoe: error: ")
    assert heard.count("\n") == 1
    assert "torch.nn.modules.linear.Linear" in heard
