"""The commands, as a user runs them."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from geomoe.cli.main import main
from geomoe.cli.units import Bytes, in_time
from geomoe.models import available_weights, list_models, load, read_card
from geomoe.models.measured import Measured
from geomoe.models.weights import save
from geomoe.pipeline import Outcome
from tests.models.test_models import tiny
from tests.models.test_weights import card_of
from tests.scenes import pixels, write_scene


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = tiny("mfg_hmoe", base="bicubic")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(path, model, card_of(model))
    return str(path)


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.tif"
    data = np.random.default_rng(0).integers(1, 255, (3, 20, 30), dtype=np.uint8)
    profile = {
        "driver": "GTiff",
        "width": 30,
        "height": 20,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32618",
    }
    with rasterio.open(path, "w", **profile, transform=from_origin(500_000, 4_000_000, 10, 10)) as file:
        file.write(data)
    return path


def run(capsys, *args):
    """Exit status, standard output and standard error of a command."""
    status = 0
    try:
        main([str(arg) for arg in args])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err


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
    manifest = tmp_path / "m.csv"
    manifest.write_text("src,dst\nscene.tif,many.tif\n")
    status, _, err = run(
        capsys, "upscale", "--manifest", manifest, "--model", weights, "--scale", "2", "--nodata", "0",
        "--processes", "1",
    )  # fmt: skip
    assert status == 0, err
    with rasterio.open(tmp_path / "many.tif") as file:
        assert file.nodata == 0
    assert run(capsys, "info", scene, "--nodata", "x")[0] == 2


def test_a_scene_is_conserved_by_one_option(capsys, scene, weights, tmp_path):
    (tmp_path / "m.csv").write_text("src,dst\nscene.tif,many.tif\n")
    common = ["--model", weights, "--scale", "2", "--conserve"]
    for place in ([scene, tmp_path / "one.tif"], ["--manifest", tmp_path / "m.csv", "--processes", "1"]):
        status, _, err = run(capsys, "upscale", *place, *common)
        assert status == 0, err
    with rasterio.open(scene) as file:
        source = file.read()
    for name in ("one", "many"):
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            made = file.read().astype(float)
        bands, height, width = source.shape
        assert np.array_equal(made.reshape(bands, height, 2, width, 2).mean((2, 4)), source)
    assert "means are the source's pixels" in run(capsys, "verify", tmp_path / "one.tif")[1]


def test_models_lists_and_shows_a_card(capsys, weights):
    status, said, _ = run(capsys, "models")
    assert status == 0
    assert "mfg_hmoe_light" in said
    status, said, _ = run(capsys, "models", weights, "--json")
    assert json.loads(said)["licence"] == "Apache-2.0"
    status, said, _ = run(capsys, "models", "mfg_hmoe", "--json")
    assert json.loads(said)["experts_per_group"] == 8, "a model without weights shows its configuration"
    assert run(capsys, "models", "--scale", 2)[0] == 2
    status, said, _ = run(capsys, "models", weights)
    assert "degradation" in said


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


def test_a_card_shows_what_training_began_from_in_short_lines(capsys):
    said = run(capsys, "models", "mfg_hmoe_light_x4")[1]
    legs = [line.split(maxsplit=1)[1] for line in said.splitlines() if line.split()[0] == "start"]
    assert legs
    assert all(re.fullmatch(r"[0-9a-f]{12}, after \d+ steps", leg) for leg in legs)


def test_a_card_begins_with_what_was_measured(capsys, weights, tmp_path):
    loaded = load(str(weights))
    found = Measured(
        "fields", None, None, "bicubic", None, "hsenet", 3, {"psnr": 30.5}, {"psnr": 30.0}, "2026-11-26",
        ranks="psnr",
    )  # fmt: skip
    card = replace(loaded.card, measured=[asdict(found)], scores={"psnr": 33.0, "scored": "validation"})
    save(tmp_path / "w.safetensors", loaded.model, card)
    said = run(capsys, "models", tmp_path / "w.safetensors")[1].splitlines()
    keys = [line.split()[0].rstrip(",") for line in said if line.startswith("  ") and line[2] != " "]
    assert keys[:3] == ["model", "task", "measured"]
    assert len(keys) == len(set(keys))
    assert "  scores, validation" in said


def test_models_says_of_each_what_it_is_and_how_large(capsys):
    said = run(capsys, "models")[1].partition("\n\n")[0]
    lines = {line.split()[0]: line for line in said.splitlines() if not line.startswith(" ")}
    assert lines.keys() - {"model"} == set(list_models())
    assert "…" not in said, "nothing is cut off"
    assert "43,089,923" in lines["edsr_l"], "the published count"
    assert "EDSR: Enhanced Deep Residual Networks" in lines["edsr"]
    assert lines["edsr"].split()[-1] == "-", "no weights ship with it"
    for name, path in available_weights().items():
        assert f"{name} {read_card(path).scores['gain']:+.2f} dB" in said


def test_evaluate_prints_ours_beside_bicubic(capsys, weights, tmp_path):
    (tmp_path / "images" / "field").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(tmp_path / "images" / "field" / "x.png")
    out = tmp_path / "scores.json"
    status, said, heard = run(
        capsys, "evaluate", "--model", weights, "--scale", 2, "--data", tmp_path / "images", "--json", out
    )
    assert status == 0, heard
    assert "field" in said
    assert "mfg_hmoe" in said
    found = json.loads(out.read_text())
    assert found["overall"]["gain"] == pytest.approx(
        found["overall"]["scores"]["psnr"] - found["overall"]["baseline"]["psnr"]
    )
    assert "SAM" not in said
    more = ("--metrics", "psnr, sam,scc", "--json", out)
    status, said, heard = run(
        capsys, "evaluate", "--model", weights, "--scale", 2, "--data", tmp_path / "images", *more
    )
    assert status == 0, heard
    again = json.loads(out.read_text())["overall"]
    assert f"{again['scores']['sam']:.3f}" in said
    assert list(again["scores"]) == ["psnr", "ssim", "sam", "scc"]
    assert all(again["scores"][name] == value for name, value in found["overall"]["scores"].items())


def test_what_bfloat16_costs_is_told_and_put_on_the_card(capsys, weights, tmp_path):
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(tmp_path / "images" / "x.png")
    weights = Path(shutil.copy(weights, tmp_path / "w.safetensors"))
    given = ("evaluate", "--model", weights, "--scale", 2, "--data", tmp_path / "images")
    before = read_card(weights)
    status, said, heard = run(capsys, *given, "--precision", "bfloat16", "--card", weights)
    assert (status, said) == (1, "")
    assert "--overwrite" in heard
    status, said, heard = run(capsys, *given, "--precision", "bfloat16", "--card", weights, "--overwrite")
    assert status == 0, heard
    card = read_card(weights)
    assert f"bfloat16 costs {card.bfloat16['loss']:.4f} dB against float32" in said
    assert card.bfloat16["scored"] == "the one image of a folder"
    assert card.bfloat16["data"] == "images"
    assert replace(card, bfloat16={}) == before  # the hash of the tensors included


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


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        pytest.param("SIGTERM", 143, "terminated", marks=pytest.mark.slow),
        pytest.param("SIGHUP", 129, "terminated", marks=pytest.mark.slow),
        ("SIGINT", 130, "interrupted"),
    ],
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
        f"geomoe: {said}; 1 of 12 tiles are kept in {kept}; the same command goes on"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept.name, "scene.tif"]
    goes_on = [sys.executable, "-m", "geomoe.cli.main", *map(str, args)]
    again = subprocess.run(goes_on, capture_output=True, text=True, check=True)
    assert "goes on: 1 of 12 tiles were done" in again.stderr
    model = f"tiny.{read_card(Path(weights)).hash[:12]}.stac.json"
    made = ["out.stac.json", "out.tif", "scene.tif", model]
    assert sorted(path.name for path in tmp_path.iterdir()) == made


def test_usage_errors_exit_with_2(capsys):
    assert run(capsys, "upscale", "only-one")[0] == 2
    assert run(capsys, "nonsense")[0] == 2


def test_help_imports_no_torch():
    code = "import sys; sys.argv = ['geomoe', '--help']; from geomoe.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "upscale" in done.stdout
    assert " torch" not in done.stderr
    assert " rasterio" not in done.stderr


def test_input_errors_are_told_and_scenes_described_without_torch(scene, tmp_path):
    """Which takes seconds to be imported."""
    (tmp_path / "there.tif").touch()
    (tmp_path / "m.csv").write_text("src,dst\n")
    commands = [
        ["upscale", tmp_path / "none.tif", tmp_path / "o.tif"],
        ["upscale", tmp_path / "none.zip", tmp_path / "o.tif"],
        ["upscale", scene, tmp_path / "o.tif", "--bands", "B99"],
        ["upscale", scene, tmp_path / "there.tif"],
        ["upscale", scene, tmp_path / "none" / "o.tif"],
        ["upscale", scene, tmp_path / "o.tif", "--experts", tmp_path / "o.tif"],
        ["upscale", scene, scene, "--overwrite"],
        ["upscale", "--manifest", tmp_path / "m.csv"],
        ["upscale", "--manifest", tmp_path / "m.csv", "--dry-run"],
        ["info", tmp_path / "none.tif"],
        ["info", tmp_path / "none.tif", "--scale", 4],
        ["verify", tmp_path / "none.tif"],
        ["info", scene],
    ]
    code = (
        "import json, sys\n"
        "from geomoe.cli.main import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        main(command)\n"
        "    except SystemExit as stop:\n"
        "        print('status', stop.code)\n"
        "print('torch' in sys.modules, flush=True)\n"
    )
    words = json.dumps([list(map(str, command)) for command in commands])
    done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, check=True)
    assert done.stdout.count("status 1\n") == len(commands) - 1
    assert "radiometry" in done.stdout
    assert done.stdout.endswith("False\n")
    said = done.stderr.splitlines()
    assert len(said) == len(commands) - 1
    for line, what in zip(
        said,
        ["does not exist", "does not exist", "B99", "exists already", "does not exist", "are both",
         "input itself", "names no scene", "names no scene", "does not exist", "does not exist",
         "does not exist"],
        strict=True,
    ):  # fmt: skip
        assert what in line


@pytest.mark.slow
def test_what_libraries_warn_of_is_not_for_users(weights, tmp_path):
    """An alpha band and nodata, of which rasterio says its path and what a programmer might do."""
    data = np.random.default_rng(0).integers(1, 255, (4, 20, 30), dtype=np.uint8)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=30, height=20, count=4, dtype="uint8", nodata=0
    ) as file:
        file.write(data)
        file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    with rasterio.open(tmp_path / "a.tif") as file, pytest.warns(rasterio.errors.NodataShadowWarning):
        file.dataset_mask()
    for command in ("info", "upscale"):
        place = [] if command == "info" else [tmp_path / "o.tif"]
        done = subprocess.run(
            [sys.executable, "-m", "geomoe.cli.main", command, tmp_path / "a.tif", *place,
             "--scale", "2", "--model", weights],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert [line for line in done.stderr.splitlines() if not line.startswith("tiles")] == []


def test_importing_the_package_brings_in_nothing_heavy():
    code = "import sys, geomoe; print([m for m in ('torch', 'numpy', 'rasterio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_attributes_of_the_package_are_errors():
    import geomoe

    with pytest.raises(AttributeError, match="upscal"):
        geomoe.upscal  # noqa: B018


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("512MiB", 2**29), ("1.5g", 1_500_000_000), ("700 kb", 700_000), ("12B", 12)],
)
def test_sizes_as_people_write_them(text, count):
    assert Bytes().convert(text, None, None) == count


@pytest.mark.parametrize("text", ["4", "1.5", " 800 "])
def test_a_size_without_a_unit_is_not_taken_for_bytes(text):
    with pytest.raises(click.BadParameter, match=rf"has no unit, and would be bytes; say {text.strip()}G "):
        Bytes().convert(text, None, None)


@pytest.mark.parametrize("text", ["4XB", "", "GB", "-1GB", "0", "1e9GB"])
def test_what_is_no_size(text):
    with pytest.raises(click.BadParameter, match="expected one such as 4GB"):
        Bytes().convert(text, None, None)


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (80, "80 s"), (700, "12 min"), (9000, "2.5 h")])
def test_times_as_people_read_them(seconds, said):
    assert in_time(seconds) == said


@pytest.mark.parametrize("more", [[], pytest.param(["--scheduler", "local"], marks=pytest.mark.slow)])
def test_a_manifest_is_done_and_reported(capsys, scene, weights, tmp_path, more):
    (tmp_path / "m.csv").write_text(f"src,dst,experts\n{scene},out.tif,experts.tif\nnone.tif,none_x2.tif,\n")
    args = ["upscale", "--manifest", tmp_path / "m.csv", "--scale", 2, "--model", weights, "--processes", 1]
    status, out, err = run(capsys, *args, "--retries", 0, *more)
    assert status == 1
    assert out == f"2 scenes: 1 done, 1 failed; {tmp_path / 'm.csv.report.csv'}\n"
    assert err.splitlines()[-1].startswith("geomoe: error: 1 of 2 scenes were not made; see ")
    assert "none.tif: failed: " in err
    (tmp_path / "m.csv").write_text(f"src,dst,experts\n{scene},out.tif,experts.tif\n")
    status, out, _ = run(capsys, *args, "--report", tmp_path / "r.csv")
    assert (status, out) == (0, f"1 scene: 1 there; {tmp_path / 'r.csv'}\n")
    assert sorted(p.name for p in tmp_path.glob("*.tif")) == ["experts.tif", "out.tif", "scene.tif"]
    status, _, err = run(capsys, *args, "--report", tmp_path / "none" / "r.csv")
    assert (status, len(err.splitlines())) == (1, 1), "before the work, not after"


def test_a_night_that_is_cut_off_leaves_its_report(capsys, scene, weights, tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text(f"src,dst\n{scene},out.tif\n{scene},other.tif\n")

    def cut_off(requests, heard, **rest):
        heard(Outcome(requests[1], "done"))
        raise KeyboardInterrupt

    monkeypatch.setattr("geomoe.pipeline.upscale_many", cut_off)
    status, _, _ = run(capsys, "upscale", "--manifest", tmp_path / "m.csv", "--scale", 2, "--model", weights)
    assert status == 130
    lines = (tmp_path / "m.csv.report.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines] == ["status", "waiting", "done"]


def test_a_dry_run_of_a_manifest(capsys, scene, weights, tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text(f"src,dst\n{scene},out.tif\nnone.tif,none_x2.tif\n")
    args = ["upscale", "--manifest", tmp_path / "m.csv", "--scale", 2, "--model", weights, "--dry-run"]
    status, out, err = run(capsys, *args)
    assert status == 1
    assert out.startswith("scenes   1 to be made, 0 made already, 0 empty, 1 refused\ntiles ")
    assert out.endswith("learned  from tiles of 1 of the scenes\nnothing was written (--dry-run)\n")
    assert "none.tif: " in err
    assert err.splitlines()[-1] == "geomoe: error: 1 of 2 scenes would not be made"
    (tmp_path / "m.csv").write_text(f"src,dst\n{scene},out.tif\n")
    assert run(capsys, *args)[0] == 0
    assert run(capsys, *args, "--scheduler", "local")[0] == 2
    usage = SimpleNamespace(free=1)
    shutil = SimpleNamespace(disk_usage=lambda folder: usage)
    monkeypatch.setattr("geomoe.pipeline.batch.estimate.shutil", shutil)
    status, _, err = run(capsys, *args)
    assert status == 1
    assert "has 0.0 MB free, and " in err.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.csv", "scene.tif"]


@pytest.mark.parametrize(
    "args", [["a.tif"], [], ["--manifest", "m.csv", "a.tif"], ["--manifest", "m.csv", "--bands", "1"]]
)
def test_a_manifest_or_a_scene(capsys, args):
    assert run(capsys, "upscale", *args)[0] == 2


def test_what_was_decided_of_a_scene_is_told_before_its_tiles_and_in_a_manifest(tmp_path, capsys):
    data = pixels(3, 60, 60, "uint8", seed=1).clip(1)
    data[:, :, :25] = 0  # a collar that the scene does not declare
    src = write_scene(tmp_path / "s.tif", data)
    main(["upscale", str(src), str(tmp_path / "o.tif"), "--scale", "2"])
    out = capsys.readouterr().out.splitlines()
    assert "taken for pixels without data" in out[0]
    (tmp_path / "m.csv").write_text(f"src,dst\n{src},{tmp_path / 'p.tif'}\n")
    main(["upscale", "--manifest", str(tmp_path / "m.csv"), "--scale", "2"])
    assert "s.tif: done: " in (told := capsys.readouterr().err)
    assert "taken for pixels without data" in told
    assert "taken for pixels without data" in (tmp_path / "m.csv.report.csv").read_text()


@pytest.mark.parametrize("option", ["--report=r.csv", "--processes=2", "--scheduler=local"])
def test_what_is_of_a_manifest_is_not_ignored_for_one_scene(capsys, option):
    with pytest.raises(SystemExit) as ended:
        main(["upscale", "s.tif", "o.tif", option])
    assert ended.value.code == 2
    assert f"{option.partition('=')[0]} is of a --manifest" in capsys.readouterr().err
