"""No command writes over a file that it reads, by whatever name it is given."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import create_model
from geomoe.cli.main import main
from geomoe.models.weights import save
from geomoe.raster.stac.item import sha256
from tests.models.test_weights import card_of
from tests.products import write_item, write_safe
from tests.scenes import pixels, write_scene


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    model = create_model("edsr", scale=2, width=4, blocks=1)
    (folder / "w").mkdir()
    save(folder / "w" / "tiny.safetensors", model, replace(card_of(model), model="edsr"))
    # Weights may have any name that has a folder in it.
    for name in ("tiny.tif", "tiny.png", "tiny.csv", "tiny.json"):
        shutil.copy(folder / "w" / "tiny.safetensors", folder / "w" / name)
    for name in ("a", "b", "red"):
        write_scene(folder / f"{name}.tif", pixels(1 if name == "red" else 3, 24, 24, "uint16"))
    write_item(folder / "item.json", {"red": {"href": "./red.tif", "eo:bands": [{"name": "B04"}]}})
    write_safe(folder / "p.SAFE", "L2A")
    (folder / "images").mkdir()
    for name in ("x", "y"):
        noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{name}.png")
    (folder / "m.csv").write_text("src,dst\na.tif,x.tif\nitem.json,y.tif\np.SAFE,z.tif\n")
    (folder / "list.yaml").write_text("sources: [{name: all, folder: images}]")
    (folder / "n.csv").write_text("src,dst\na.tif,x.tif\nitem.json,y.tif\n")
    return folder


def _under(name: str, way: str, folder: Path) -> str:
    """A name of a file: its own, one through a folder that is a link, a link or a second name."""
    path = folder / name
    other = path.with_name(f"other{path.suffix}")
    if way == "folder":
        (folder / "way").symlink_to(path.parent)
        return str(folder / "way" / path.name)
    if way == "link":
        other.symlink_to(path)
    elif way == "hard":
        os.link(path, other)
    return str(path if way == "itself" else other)


WAYS = ("itself", "folder", "link", "hard")
UPSCALE = ("upscale", "--scale", "2", "--device", "cpu", "--tile", "24", "--overwrite")
# By command: how it is called with a file to write, and the files that it reads.
CASES: dict[str, tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]] = {
    "upscale": (lambda w: (*UPSCALE, "--model", "w/tiny.safetensors", "a.tif", w), ("a.tif",)),
    "upscale by weights": (lambda w: (*UPSCALE, "--model", "w/tiny.tif", "a.tif", w), ("w/tiny.tif",)),
    "upscale an item": (
        lambda w: (*UPSCALE, "--model", "w/tiny.safetensors", "item.json", w),
        ("red.tif",),
    ),
    "a map": (
        lambda w: (*UPSCALE, "--model", "w/tiny.safetensors", "a.tif", "x.tif", "--consistency", w),
        ("a.tif",),
    ),
    "the report": (
        lambda w: (*UPSCALE, "--model", "w/tiny.csv", "--manifest", "m.csv", "--report", w),
        ("m.csv", "w/tiny.csv", "a.tif", "red.tif", "item.json", "p.SAFE/MTD_MSIL2A.xml"),
    ),
    "evaluate": (
        lambda w: ("evaluate", "--scale", "2", "--model", "w/tiny.json", "--data", "images", "--json", w),
        ("images/x.png", "w/tiny.json"),
    ),
    "evaluate by source": (
        lambda w: (
            *("evaluate", "--scale", "2", "--model", "w/tiny.json", "--data", "images"),
            *("--sources", "list.yaml", "--markdown", w),
        ),
        ("images/x.png", "w/tiny.json", "list.yaml"),
    ),
    "picture": (
        lambda w: (
            "picture",
            "images/x.png",
            "--scale",
            "2",
            "--model",
            "w/tiny.png",
            "--overwrite",
            "-o",
            w,
        ),
        ("images/x.png", "w/tiny.png"),
    ),
    "export": (
        lambda w: ("export", "w/tiny.safetensors", w, "--data", "images", "--overwrite"),
        ("w/tiny.safetensors",),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("command", "read"), [(c, r) for c, (_, reads) in CASES.items() for r in reads])
def test_what_is_read_is_not_written_over(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    command: str, read: str, way: str,
) -> None:  # fmt: skip
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    target = _under(read, way, tmp_path / "here")
    before = {path: sha256(path) for path in (tmp_path / "here").rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        main(CASES[command][0](target))
    heard = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1
    assert heard[-1].startswith("geomoe: error: ")
    assert any(
        word in heard[-1]
        for word in ("itself", "the weights", "the manifest", "among the images", "what training wrote")
    ), heard
    after = {path: sha256(path) for path in (tmp_path / "here").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.tif,red.tif", "line 4: .*red.tif is the scene of line 3"),
        ("b.tif,a.tif", "line 4: .*a.tif is the scene of line 2"),
        ("b.tif,soft.tif", "line 4: .* is the scene of line 2"),
        ("b.tif,hard.tif", "line 4: .* is the scene of line 2"),
        ("b.tif,way/a.tif", "line 4: .* is the scene of line 2"),
        ("b.tif,way/x.tif", "line 4: .* is the target of line 2"),
        ("b.tif,X/../x.tif", "line 4: .* is the target of line 2"),
        ("item.json,x.tiff", "line 4: .* is the target of line 2"),
    ],
)
def test_no_line_of_a_manifest_writes_over_what_another_reads(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    here = tmp_path / "here"
    shutil.copytree(made, here)
    (here / "way").symlink_to(here)
    (here / "X").mkdir()
    (here / "soft.tif").symlink_to("a.tif")
    os.link(here / "a.tif", here / "hard.tif")
    with (here / "n.csv").open("a") as file:
        file.write(f"{line}\n")
    for more in ((), ("--dry-run",)):
        args = (*UPSCALE, "--model", str(here / "w" / "tiny.safetensors"), "--manifest", str(here / "n.csv"))
        with pytest.raises(SystemExit) as stop:
            main((*args, *more))
        assert stop.value.code == 1
        heard = capsys.readouterr().err
        assert re.search(said, heard), heard


def test_work_that_is_kept_is_not_a_scene(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".x.tif.geomoe"
    folder.mkdir()
    shutil.copy(made / "a.tif", folder / "part.tif")
    with pytest.raises(SystemExit):
        main((*UPSCALE, "--model", str(made / "w" / "tiny.safetensors"), str(folder / "part.tif"),
              str(tmp_path / "x.tif")))  # fmt: skip
    assert "input itself" in capsys.readouterr().err
    assert sha256(folder / "part.tif") == sha256(made / "a.tif")
