"""What reaches a terminal, and what becomes of a command whose terminal takes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import geomoe.models
from geomoe.cli import main as main_module
from geomoe.cli.main import main
from geomoe.cli.say import say
from geomoe.errors import GeomoeError
from geomoe.models.weights import Card, save
from tests.models.test_models import tiny
from tests.scenes import pixels, write_scene

ESCAPE = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202ename\rb"
"""Sets the title, clears the screen, colours, turns the direction of writing, and goes back in the line."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = tiny("edsr")
    path = tmp_path / "tiny.safetensors"
    save(path, model, Card("edsr", asdict(model.config), "unit", {}, "", {}, "", {}, "", "", ""))
    return path


def _run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    try:
        main([str(arg) for arg in args])
    except SystemExit as end:
        status = int(end.code or 0)
    else:
        status = 0
    return status, "".join(capsys.readouterr())


def _shown(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text), repr(text)
    assert "name" in text


def test_a_line_is_one_line_of_what_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{ESCAPE}\nverified  it is as it was made", "café \udce9")
    assert capsys.readouterr().out == ("a?]0;title??[2J?31m?name b verified  it is as it was made\ncafé ?\n")


def _band(folder: Path, weights: Path) -> list[object]:
    path = write_scene(folder / "a.tif", pixels(3, 9, 9, "uint8"), names=[ESCAPE, "b", "c"])
    return ["info", path, "--model", weights, "--scale", 2]


def _band_of_a_dry_run(folder: Path, weights: Path) -> list[object]:
    _, path, *rest = _band(folder, weights)
    return ["upscale", path, folder / "b.tif", *rest, "--dry-run"]


def _band_of_a_result(folder: Path, weights: Path) -> list[object]:
    return [arg for arg in _band_of_a_dry_run(folder, weights) if arg != "--dry-run"]


def _name_of_a_scene(folder: Path, weights: Path) -> list[object]:
    path = write_scene(folder / f"{ESCAPE}.tif", pixels(3, 9, 9, "uint8"))
    return ["info", path, "--model", weights, "--scale", 2]


def _name_that_is_not_there(folder: Path, weights: Path) -> list[object]:
    return ["verify", folder / f"{ESCAPE}.tif", folder / f"{ESCAPE}2.tif"]


def _card(folder: Path, weights: Path) -> list[object]:
    model = tiny("edsr")
    card = Card("edsr", asdict(model.config), "unit", {ESCAPE: ESCAPE}, ESCAPE, {}, "", {}, "", ESCAPE, "")
    save(folder / "w.safetensors", model, card)
    return ["models", folder / "w.safetensors"]


def _card_as_json(folder: Path, weights: Path) -> list[object]:
    return [*_card(folder, weights), "--json"]


def _model_of_a_card(folder: Path, weights: Path) -> list[object]:
    card = Card(ESCAPE, {}, "unit", {}, "", {}, "", {}, "", "", "")
    save_file({"a": torch.ones(1)}, folder / "w.safetensors", {"geomoe": json.dumps(asdict(card))})
    return ["models", folder / "w.safetensors"]


def _cell(folder: Path, weights: Path) -> list[object]:
    (folder / "a.csv").write_text(f'src,dst\n"{ESCAPE}.tif","{ESCAPE}.tif"\n')
    return ["upscale", "--manifest", folder / "a.csv", "--model", weights, "--scale", 2]


def _head(folder: Path, weights: Path) -> list[object]:
    (folder / "a.csv").write_text(f'src,"{ESCAPE}"\na,b\n')
    return ["upscale", "--manifest", folder / "a.csv", "--model", weights, "--scale", 2]


def _scene_of_a_night(folder: Path, weights: Path) -> list[object]:
    (folder / "a.csv").write_text(f'src,dst\n"{ESCAPE}.tif",b.tif\n')
    return ["upscale", "--manifest", folder / "a.csv", "--model", weights, "--scale", 2, "--dry-run"]


def _class(folder: Path, weights: Path) -> list[object]:
    from PIL import Image

    (folder / "images" / ESCAPE).mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "images" / ESCAPE / "a.png")
    return ["evaluate", "--model", weights, "--scale", 2, "--data", folder / "images"]


SOURCES: list[Callable[[Path, Path], list[object]]] = [
    _band, _band_of_a_dry_run, _band_of_a_result, _name_of_a_scene, _name_that_is_not_there, _card,
    _card_as_json, _model_of_a_card, _cell, _head, _scene_of_a_night, _class,
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_no_escape_reaches_the_terminal(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str], source: Callable[..., list[object]]
) -> None:
    _shown(_run(capsys, *source(tmp_path, weights))[1])


def test_commands_speak_by_one_way_alone() -> None:
    """But for click's own help and usage, and bars whose words are ours."""
    for path in Path(main_module.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert path.name == "say.py" or "click.echo" not in text, path
        assert path.name in ("say.py", "progress.py") or "Console(" not in text, path


ODD = [
    {"data": None}, {"data": [1, {"a": 1}]}, {"recipe": {"start": 1}}, {"recipe": {"start": {}}},
    {"recipe": {"start": {"recipe": [], "hash": 1}}}, {"recipe": [{"start": 1}]}, {"scores": "x"},
    {"date": None}, {"licence": {"a": None}}, {"degradation": 1e999}, {"commit": ["\ud800"]},
    {"scores": {"gain": "much"}}, {"protocol": True}, {"data": {"source": {"a": 1}}},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_odd_entries_of_a_card_are_shown_and_carried_or_one_line_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: dict[str, object]
) -> None:
    model, path = tiny("edsr"), tmp_path / "w.safetensors"
    card = Card("edsr", asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "")
    save(path, model, Card(**{**asdict(card), **odd}))
    status, said = _run(capsys, "models", path)
    if status == 1:
        assert said.startswith("geomoe: error: ")
        assert said.count("\n") == 1
        return
    assert _run(capsys, "models", path, "--json")[0] == 0
    scene = write_scene(tmp_path / "a.tif", pixels(3, 9, 9, "uint8"))
    status, said = _run(capsys, "upscale", scene, tmp_path / "b.tif", "--model", path, "--scale", 2)
    assert status == 0, said
    assert _run(capsys, "verify", tmp_path / "b.tif", "--weights", path)[0] == 0


def _process(command: str, *args: object) -> subprocess.CompletedProcess[str]:
    """``geomoe`` by a shell; ``$@`` in the command are the arguments."""
    line = ["bash", "-c", command, sys.executable, *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


_GEOMOE = '"$0" -m geomoe.cli.main "$@"'


@pytest.mark.parametrize("args", [["--help"], ["models", "edsr"]])
def test_a_full_disk_under_standard_output_is_one_line(args: list[str]) -> None:
    done = _process(f"{_GEOMOE} > /dev/full", *args)
    assert done.returncode == 1
    assert done.stderr.startswith("geomoe: error: standard output")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_job_is_done_where_standard_error_takes_nothing(tmp_path: Path, weights: Path) -> None:
    scene = write_scene(tmp_path / "a.tif", pixels(3, 9, 9, "uint8"))
    for number, place in enumerate(("2>&-", "<&- >&- 2>/dev/full")):
        out = tmp_path / f"out{number}.tif"
        done = _process(f"{_GEOMOE} {place}", "upscale", scene, out, "--model", weights, "--scale", 2)
        assert done.returncode == 0
        assert out.is_file()
    assert len({path.read_bytes() for path in tmp_path.glob("out?.tif")}) == 1


def test_a_signal_that_other_code_took_for_an_error_still_ends_the_job(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "a.tif", pixels(3, 20, 20, "uint8"))

    def load(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except BaseException as error:
            raise GeomoeError("a.safetensors is not a weights file") from error

    monkeypatch.setattr(geomoe.models, "load", load)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert _run(capsys, "upscale", scene, tmp_path / "out.tif", "--model", "a.safetensors") == (
            143,
            "geomoe: terminated\n",
        )
    finally:
        signal.signal(signal.SIGTERM, before)
