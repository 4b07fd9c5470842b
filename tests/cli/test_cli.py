"""The commands, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geomoe.models import read_card
from geomoe.models.weights import save
from tests.cli.run import run
from tests.models.test_models import tiny
from tests.models.test_weights import card_of
from tests.scenes import write_scene


def test_upscale_writes_the_scene_and_the_map(capsys, scene, weights, tmp_path):
    out, experts = tmp_path / "out.tif", tmp_path / "experts.tif"
    status, said, heard = run(
        capsys, "upscale", scene, out, "--scale", 2, "--model", weights, "--experts", experts
    )
    assert status == 0, heard
    with rasterio.open(out) as file:
        assert (file.width, file.height, file.count, file.dtypes[0]) == (60, 40, 3, "uint8")
        assert file.transform.almost_equals(from_origin(500_000, 4_000_000, 5, 5))
    with rasterio.open(experts) as file:
        assert (file.width, file.height) == (30, 20)
        group, expert, confidence, entropy = file.read()
        assert set(np.unique(group)) <= {1, 2}
        assert set(np.unique(expert)) <= {1, 2}
        assert min(confidence.min(), entropy.min()) >= 1
        assert json.loads(file.tags()["GEOMOE_LEGEND"])["groups"][1]["kernel_size"] == 3
    assert "60 x 40" in said
    assert "tiles 1/1" in heard, "plain lines where the output is no terminal"


@pytest.mark.parametrize("head", ["gated", "dense"])
def test_a_model_of_one_expert_has_no_map(capsys, scene, tmp_path, head):
    model = tiny("mfg_hmoe", head=head)
    save(tmp_path / "one.safetensors", model, card_of(model))
    asked = ("upscale", scene, tmp_path / "out.tif", "--scale", 2, "--model", tmp_path / "one.safetensors")
    status, _, heard = run(capsys, *asked, "--experts", tmp_path / "experts.tif")
    assert status == 1
    assert "one routes nothing" in heard
    assert not (tmp_path / "out.tif").exists()
    assert run(capsys, *asked)[0] == 0


def test_the_legend_knows_groups_of_unequal_size(capsys, scene, tmp_path):
    model = tiny("mfg_hmoe", kernel_sizes=(1, 3, 5), experts_per_group=(2, 3, 2))
    save(tmp_path / "three.safetensors", model, card_of(model))
    experts = tmp_path / "experts.tif"
    status, _, heard = run(
        capsys, "upscale", scene, tmp_path / "out.tif", "--scale", 2,
        "--model", tmp_path / "three.safetensors", "--experts", experts,
    )  # fmt: skip
    assert status == 0, heard
    with rasterio.open(experts) as file:
        groups = json.loads(file.tags()["GEOMOE_LEGEND"])["groups"]
    assert [(g["kernel_size"], g["experts"]) for g in groups] == [(1, 2), (3, 3), (5, 2)]


def test_dry_run_tells_and_writes_nothing(capsys, scene, weights, tmp_path):
    before = sorted(tmp_path.iterdir())
    status, said, _ = run(
        capsys, "upscale", scene, tmp_path / "out.tif", "--scale", 2, "--model", weights, "--dry-run"
    )
    assert status == 0
    assert "60 x 40" in said
    assert "memory" in said
    assert sorted(tmp_path.iterdir()) == before


def test_info_says_what_is_understood(capsys, scene, weights):
    status, said, _ = run(capsys, "info", scene, "--model", weights, "--scale", 2)
    assert status == 0
    assert "EPSG:32618" in said
    assert "uint8" in said
    assert "valid" in said


def test_nodata_is_found_said_or_none(capsys, scene, weights, tmp_path):
    with rasterio.open(scene, "r+") as file:
        data = file.read()
        data[:, :8] = 0
        file.write(data)
    status, out, _ = run(capsys, "info", scene)
    assert status == 0
    assert "40.0% of pixels are 0 in all bands" in out
    for said, nodata in (("-5", "never -5"), ("0", "from --nodata, band by band"), ("none", "every pixel")):
        _, out, err = run(capsys, "info", scene, "--nodata", said)
        assert nodata in out + err
    dst = tmp_path / "o.tif"
    status, out, err = run(
        capsys, "upscale", scene, dst, "--model", weights, "--scale", "2", "--nodata", "none"
    )
    assert (status, "in all bands" in out) == (0, False), err
    with rasterio.open(dst) as file:
        assert file.nodata is None
    assert run(capsys, "info", scene, "--nodata", "x")[0] == 2


@pytest.mark.slow
def test_nodata_is_said_of_many(capsys, scene, weights, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("src,dst\nscene.tif,many.tif\n")
    asked = ("upscale", "--manifest", manifest, "--model", weights, "--scale", "2", "--processes", "1")
    status, _, err = run(capsys, *asked, "--nodata", "0")
    assert status == 0, err
    with rasterio.open(tmp_path / "many.tif") as file:
        assert file.nodata == 0


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_scene_is_conserved_by_one_option(capsys, scene, weights, tmp_path, many):
    (tmp_path / "m.csv").write_text("src,dst\nscene.tif,one.tif\n")
    manifest = ("--manifest", tmp_path / "m.csv", "--processes", "1")
    place = manifest if many else (scene, tmp_path / "one.tif")
    status, _, err = run(capsys, "upscale", *place, "--model", weights, "--scale", "2", "--conserve")
    assert status == 0, err
    with rasterio.open(scene) as file:
        source = file.read()
    with rasterio.open(tmp_path / "one.tif") as file:
        made = file.read().astype(float)
    bands, height, width = source.shape
    assert np.array_equal(made.reshape(bands, height, 2, width, 2).mean((2, 4)), source)
    assert "means are the source's pixels" in run(capsys, "verify", tmp_path / "one.tif")[1]


@pytest.mark.parametrize("by", ["name", "palette"])
def test_info_tells_of_a_file_of_classes_alone(capsys, tmp_path, by):
    path = write_scene(
        tmp_path / "qa.tif", np.random.default_rng(0).integers(1, 9, (1, 8, 8), dtype=np.uint8)
    )
    with rasterio.open(path, "r+") as file:
        if by == "name":
            file.descriptions = ("QA_PIXEL",)
        else:
            file.colorinterp = [rasterio.enums.ColorInterp.palette]
    status, said, err = run(capsys, "info", path)
    assert (status, err) == (0, "")
    assert "8 x 8 pixels, 1 band, uint8" in said
    assert "classes, flags or numbers of colours alone" in said
    status, _, err = run(capsys, "info", path, "--bands", 1)
    assert status == 1
    assert len(err.splitlines()) == 1


def test_a_scene_is_upscaled_in_the_precision_that_is_asked_for(capsys, scene, weights, tmp_path):
    given = ("upscale", scene, tmp_path / "out.tif", "--model", weights, "--scale", 2)
    status, said, heard = run(capsys, *given, "--precision", "bfloat16", "--dry-run")
    assert status == 0, heard
    assert "runs of the model in bfloat16" in said
    status, said, heard = run(capsys, *given, "--precision", "bfloat16")
    assert status == 0, heard
    assert "in bfloat16" in said
    item = json.loads((tmp_path / "out.stac.json").read_text())
    assert item["properties"]["geomoe:configuration"]["precision"] == "bfloat16"


BAD = {
    "missing file": (("no.tif", "out.tif"), "does not exist"),
    "text file named .tif": (("text.tif", "out.tif"), "GeoTIFF"),
    "truncated": (("cut.tif", "out.tif"), "truncated|damaged"),
    "wrong scale": (("scene.tif", "out.tif", "--scale", "4"), "for scale 2, not 4"),
    "unknown model": (("scene.tif", "out.tif", "--model", "nothing"), "no model or weights file"),
    "weights for another model": (("scene.tif", "out.tif", "--model", "other.safetensors"), "another model"),
    "target exists": (("scene.tif", "there.tif"), "--overwrite"),
    "no such folder": (("scene.tif", "none/out.tif"), "folder"),
    "no such band": (("scene.tif", "out.tif", "--bands", "B99"), "B99"),
    "NaN everywhere": (("nan.tif", "out.tif"), "valid"),
    "no usable bands": (("alpha.tif", "out.tif"), "band"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(capsys, scene, weights, tmp_path, monkeypatch, case):
    args, said = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.tif").write_text("this is not an image\n")
    (tmp_path / "cut.tif").write_bytes(scene.read_bytes()[:-400])
    (tmp_path / "there.tif").write_bytes(b"precious")
    wrong = tiny("mfg_hmoe")
    save(tmp_path / "other.safetensors", tiny("mfg_hmoe", embed_dim=24), card_of(wrong))
    with rasterio.open(scene) as file:
        profile = file.profile
    with rasterio.open("nan.tif", "w", **{**profile, "dtype": "float32"}) as file:
        file.write(np.full((3, 20, 30), np.nan, np.float32))
    with rasterio.open("alpha.tif", "w", **{**profile, "count": 1}) as file:
        file.write(np.full((1, 20, 30), 255, np.uint8))
        file.colorinterp = [rasterio.enums.ColorInterp.alpha]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = () if "--model" in args else ("--model", weights)
    scale = () if "--scale" in args else ("--scale", 2)
    status, out, err = run(capsys, "upscale", *args, *options, *scale)
    assert status == 1
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("tiles")]
    assert len(lines) == 1
    assert lines[0].startswith("geomoe: error: ")
    import re

    assert re.search(said, lines[0]), lines[0]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "terminated"), ("SIGINT", 130, "interrupted")],
)
def test_a_job_that_is_ended_can_be_gone_on_with(scene, weights, tmp_path, number, status, said):
    code = (
        "import os, signal, sys\n"
        # A job in the background is born deaf to these, and so would its children be.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from geomoe.pipeline import progress\n"
        "progress.Silent.advance = lambda self: os.kill(os.getpid(), signal.SIGNUMBER)\n"
        "import geomoe.cli.scene as commands\n"
        "commands.terminal_progress = lambda what: progress.Silent()\n"
        "from geomoe.cli.main import main; main(sys.argv[1:])\n"
    ).replace("SIGNUMBER", number)
    args = ["upscale", scene, tmp_path / "out.tif", "--scale", 2, "--model", weights, "--tile", 8]
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == status
    kept = tmp_path / ".out.tif.geomoe"
    assert done.stderr.splitlines()[-1] == (
        f"geomoe: {said}; 1 of 12 tiles are kept in {kept}; the same command resumes it"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept.name, "scene.tif"]
    goes_on = [sys.executable, "-m", "geomoe.cli.main", *map(str, args)]
    again = subprocess.run(goes_on, capture_output=True, text=True, check=True)
    assert "resumes: 1 of 12 tiles were done" in again.stderr
    model = f"tiny.{read_card(Path(weights)).hash[:12]}.stac.json"
    made = ["out.stac.json", "out.tif", "scene.tif", model]
    assert sorted(path.name for path in tmp_path.iterdir()) == made
