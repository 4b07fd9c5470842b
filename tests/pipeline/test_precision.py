"""Scenes in bfloat16: chosen, recorded, kept to, and close to float32."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geomoe import moe
from geomoe.errors import GeomoeError
from geomoe.models import LoadedModel, load
from geomoe.models.precision import AskedPrecision
from geomoe.models.weights import save
from geomoe.moe.routing.router import AnyRouter
from geomoe.pipeline import Request, SceneReport, plan_scene, upscale, verify
from geomoe.pipeline.batch.scene import do_scene
from geomoe.pipeline.job import is_made
from geomoe.raster.stac.item import read_item
from tests.models.sizes import tiny
from tests.models.test_weights import card_of
from tests.pipeline.fakes import convolutional
from tests.pipeline.test_layers import routed
from tests.scenes import pixels, write_scene

MEASURED = {"loss": 0.001}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "src.tif", pixels(3, 40, 44, "uint16"))


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomoe.models.precision.has_bfloat16", lambda device: True)


def weights(folder: Path, **on_the_card: Any) -> LoadedModel:
    """A small routed network, its card in a file."""
    torch.manual_seed(0)
    model = tiny("mfg_hmoe")
    save(folder / "w.safetensors", model, card_of(model, **on_the_card))
    return load(str(folder / "w.safetensors"), 2)


def run(scene: Path, name: str, precision: AskedPrecision = "auto", **options: Any) -> SceneReport:
    given: dict[str, Any] = {"model": convolutional(), "scale": 2, "tile": 16, "device": "cpu", **options}
    return upscale(scene, scene.with_name(name), precision=precision, **given)


def read(path: Path) -> Any:
    with rasterio.open(path) as file:
        return file.read().astype(float)


def precision_of(path: Path) -> str:
    item = read_item(path.with_suffix(".stac.json"))
    return str(item["properties"]["geomoe:configuration"]["precision"])


def test_auto_is_bfloat16_where_the_device_has_it_and_the_card_says_what_it_costs(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for measured in (True, False):
        model = weights(tmp_path, bfloat16=MEASURED if measured else {})
        for native in (True, False):
            monkeypatch.setattr("geomoe.models.precision.has_bfloat16", lambda _, native=native: native)
            report = run(scene, f"{measured}{native}.tif", model=model)
            wanted = "bfloat16" if measured and native else "float32"
            assert report.plan.precision == precision_of(report.output) == wanted
            assert plan_scene(scene, tmp_path / "o.tif", model=model, scale=2).precision == wanted


@pytest.mark.usefixtures("native")
def test_a_model_without_a_card_computes_in_float32(scene: Path) -> None:
    assert run(scene, "out.tif").plan.precision == "float32"


def test_bfloat16_is_near_float32_and_is_not_it(scene: Path, tmp_path: Path) -> None:
    model, results = weights(tmp_path), {}
    for precision in ("float32", "bfloat16"):
        results[precision] = read(run(scene, f"{precision}.tif", precision, model=model).output)
    difference = np.abs(results["float32"] - results["bfloat16"])
    assert difference.max() > 0
    assert difference.mean() < 0.01 * results["float32"].std()


def test_the_precision_is_in_items_and_what_verify_says(scene: Path) -> None:
    for precision in ("float32", "bfloat16"):
        output = run(scene, f"{precision}.tif", precision).output  # type: ignore[arg-type]
        said = read_item(output.with_suffix(".stac.json"))["properties"]
        assert said["geomoe:configuration"]["precision"] == precision
        assert ("bfloat16" in said["processing:lineage"]) == (precision == "bfloat16")
        found = verify(output)
        assert found.facts["precision"] == precision
        assert not found.faults


def test_every_choice_of_experts_is_made_in_float32(scene: Path, tmp_path: Path) -> None:
    model = weights(tmp_path)
    plans: list[moe.RoutingPlan] = []
    inside: list[torch.dtype] = []
    for module in model.model.modules():
        if isinstance(module, AnyRouter):
            module.register_forward_hook(lambda _, __, plan: plans.append(plan))
            for score in module.modules():
                if isinstance(score, nn.Linear):
                    score.register_forward_hook(lambda _, __, out: inside.append(out.dtype))
    drawn: list[torch.dtype] = []
    model.model.upsample.narrow.register_forward_hook(lambda _, __, out: drawn.append(out.dtype))  # type: ignore
    run(scene, "out.tif", "bfloat16", model=model)
    assert set(drawn) == {torch.bfloat16}
    assert {x.dtype for p in plans for x in (p.logits, p.probabilities, p.weights)} == {torch.float32}
    assert set(inside) <= {torch.float32}


class _Cut(BaseException):
    pass


class _Listener:
    """Ends the work after so many tiles, and keeps what it was told."""

    def __init__(self, tiles: int = -1) -> None:
        self.left, self.note = tiles, ""

    def start(self, total: int, done: int, note: str) -> None:
        self.note = note

    def advance(self) -> None:
        self.left -= 1
        if not self.left:
            raise _Cut

    def close(self) -> None:
        pass


def begin(scene: Path, precision: AskedPrecision, model: LoadedModel) -> None:
    with pytest.raises(_Cut):
        run(scene, "out.tif", precision, model=model, progress=_Listener(2))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_a_job_that_goes_on_keeps_to_the_precision_that_it_began_in(
    scene: Path, tmp_path: Path, begun: AskedPrecision
) -> None:
    # What auto would be by itself is the other one.
    model = weights(tmp_path, bfloat16=MEASURED if begun == "float32" else {})
    whole = run(scene, "whole.tif", begun, model=model)
    begin(scene, begun, model)
    heard = _Listener()
    report = run(scene, "out.tif", model=model, progress=heard)
    assert heard.note.startswith("resumes: 2 of")
    assert report.plan.precision == begun
    assert report.output.read_bytes() == whole.output.read_bytes()


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("change", ["scene", "machine"])
def test_a_job_of_another_scene_or_machine_does_not_decide(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    model = weights(tmp_path, bfloat16=MEASURED)
    begin(scene, "float32", model)
    if change == "scene":
        write_scene(scene, pixels(3, 40, 44, "uint16", seed=1))
    else:
        monkeypatch.setattr("geomoe.pipeline.runner.torch.backends.cpu.get_cpu_capability", lambda: "other")
    assert run(scene, "out.tif", model=model).plan.precision == "bfloat16"


@pytest.mark.usefixtures("native")
def test_tiles_of_two_precisions_are_not_mixed(scene: Path, tmp_path: Path) -> None:
    model = weights(tmp_path, bfloat16=MEASURED)
    begin(scene, "auto", model)
    heard = _Listener()
    report = run(scene, "out.tif", "float32", model=model, progress=heard)
    assert heard.note == "starts over: what was begun here before is another precision"
    assert report.resumed == 0
    assert precision_of(report.output) == "float32"


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_that_is_imitated_is_told_in_one_line(
    scene: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr("geomoe.models.precision.has_bfloat16", lambda device: native)
    notes = [
        *run(scene, "out.tif", "bfloat16").plan.notes,
        *plan_scene(
            scene, scene.with_name("p.tif"), model=convolutional(), scale=2, precision="bfloat16"
        ).notes,
    ]
    assert sum("imitated" in note for note in notes) == (0 if native else 2)
    assert not any("imitated" in note for note in run(scene, "plain.tif").plan.notes)


def test_a_precision_that_there_is_not_is_refused_and_nothing_is_left(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(GeomoeError, match="'half': expected auto, float32, bfloat16"):
        run(scene, "out.tif", "half")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["src.tif"]


def _orders() -> list[Sequence[int] | None]:
    return [None, range(8, -1, -1)]


def test_maps_and_the_order_of_tiles_are_as_in_float32(scene: Path, tmp_path: Path) -> None:
    files = []
    for i, order in enumerate(_orders()):
        outs: dict[str, Any] = {name: tmp_path / f"{name}{i}.tif" for name in ("experts", "reliability")}
        run(scene, f"out{i}.tif", "bfloat16", model=routed(), order=order, fallback=True, **outs)
        files.append([read(path).tolist() for path in (tmp_path / f"out{i}.tif", *outs.values())])
    assert files[0] == files[1]
    run(scene, "out.tif", "float32", model=routed(), reliability=tmp_path / "r.tif")
    assert np.mean(read(tmp_path / "r.tif")[0] == np.array(files[0][2][0])) > 0.99


def test_means_that_are_kept_are_kept_in_either(scene: Path) -> None:
    source = read(scene)
    for precision in ("float32", "bfloat16"):
        fine = read(run(scene, f"{precision}.tif", precision, conserve=True).output)  # type: ignore[arg-type]
        means = fine.reshape(3, 40, 2, 44, 2).mean((2, 4))
        assert np.array_equal(means, source)


def test_tiles_are_those_of_the_whole_scene(scene: Path) -> None:
    tiled, whole = (read(run(scene, f"{tile}.tif", "bfloat16", tile=tile).output) for tile in (16, 48))
    assert np.abs(tiled - whole).max() <= 1e-4 * whole.max()


def test_a_file_of_either_precision_will_do_for_auto_alone(scene: Path, tmp_path: Path) -> None:
    unmeasured, model = weights(tmp_path), weights(tmp_path, bfloat16=MEASURED)
    asked: tuple[AskedPrecision, ...] = ("auto", "float32", "bfloat16")
    run(scene, "bfloat16.tif", "bfloat16", model=model)
    run(scene, "float32.tif", "float32", model=model)

    def made(name: str, precision: AskedPrecision, by: LoadedModel = model) -> bool:
        return is_made(
            Request(scene, tmp_path / name, model=by, scale=2, tile=16, precision=precision, device="cpu")
        )

    assert [made("bfloat16.tif", precision) for precision in asked] == [True, False, True]
    assert [made("float32.tif", precision) for precision in asked] == [True, True, False]
    assert not made("bfloat16.tif", "auto", unmeasured)


def test_scenes_of_a_manifest_are_computed_in_its_precision(scene: Path, settings: Request) -> None:
    task = replace(settings, src=str(scene), dst=str(scene.with_name("out.tif")))
    assert do_scene(replace(task, precision="bfloat16")).status == "done"
    assert precision_of(Path(task.dst)) == "bfloat16"
    key = json.loads(json.dumps(read_item(Path(task.dst).with_suffix(".stac.json"))))["properties"]
    assert key["geomoe:configuration"]["precision"] == "bfloat16"
    assert do_scene(replace(task, precision="bfloat16", overwrite=True)).status == "there"
    assert do_scene(replace(task, precision="float32", overwrite=True)).status == "done"
    assert precision_of(Path(task.dst)) == "float32"
