"""What commands import, and what they say before they do."""

import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio

from tests.cli.run import run


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


def test_usage_errors_exit_with_2(capsys):
    assert run(capsys, "upscale", "only-one")[0] == 2
    assert run(capsys, "nonsense")[0] == 2
