"""Every change of an output, of its item and of what stands beside it is found out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geomoe.errors import GeomoeError
from geomoe.pipeline import upscale
from geomoe.pipeline.job import is_made
from geomoe.pipeline.request import Request
from geomoe.pipeline.verification import verify
from geomoe.raster import open_scene
from tests.pipeline.fakes import FakeUpscaler, nearest
from tests.scenes import left_over, pixels, write_scene

Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_scene(folder / "src.tif", pixels(3, 20, 30, "uint16"), nodata=0, names=["B04", "B03", "B02"])
    upscale(folder / "src.tif", folder / "out.tif", model=nearest(4), experts=folder / "map.tif")
    return folder


def _leaves(value: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _leaves(value[key], (*place, key))
    else:
        yield place


def _changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else "x"


def _at(item: Any, place: Place) -> Any:
    for key in place:
        item = item[key]
    return item


def _faults(path: Path, item: Any) -> object:
    path.write_text(json.dumps(item))
    try:
        return verify(path.with_name(path.name.replace(".stac.json", ".tif"))).faults
    except GeomoeError as error:
        return str(error)


@pytest.mark.parametrize("name", ["out", pytest.param("map", marks=pytest.mark.slow)])
def test_every_value_of_an_item_counts(made: Path, name: str) -> None:
    path = made / f"{name}.stac.json"
    before = path.read_bytes()
    item = json.loads(before)
    places = list(_leaves(item))
    assert len(places) > 100
    overlooked = []
    try:
        assert _faults(path, item) == ()
        for place in places:
            other = deepcopy(item)
            _at(other, place[:-1])[place[-1]] = _changed(_at(item, place))
            if not _faults(path, other):
                overlooked.append(place)
            without = deepcopy(item)
            del _at(without, place[:-1])[place[-1]]
            if not _faults(path, without):
                overlooked.append((*place, "removed"))
        for key in item["properties"]:
            without = deepcopy(item)
            del without["properties"][key]
            if not _faults(path, without):
                overlooked.append((key, "removed"))
    finally:
        path.write_bytes(before)
    assert overlooked == []


def test_a_catalogue_may_add_its_links(made: Path) -> None:
    path = made / "out.stac.json"
    before = path.read_bytes()
    item = json.loads(before)
    item["links"] += [
        {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
        {"rel": "root", "href": "https://example.org/catalog.json"},
    ]
    try:
        assert _faults(path, item) == ()
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    "ending", [".tif.ovr", ".tif.aux.xml", ".tif.msk", ".tfw", ".TFW", ".wld", "_rpc.txt"]
)
def test_what_other_tools_read_with_a_file_is_found_beside_it(made: Path, ending: str) -> None:
    file = made / f"out{ending}"
    file.touch()
    try:
        faults = verify(made / "out.tif").faults
    except GeomoeError as error:  # a mask beside a file is refused when it is opened
        faults = (str(error),)
    file.unlink()
    assert len(faults) == 1
    assert faults[0].startswith(f"{file.name} ")
    assert verify(made / "out.tif").faults == ()


def test_what_would_be_read_with_an_output_is_refused_before_the_work(made: Path) -> None:
    (made / "new.tfw").touch()
    try:
        for overwrite in (False, True):
            with pytest.raises(GeomoeError, match=r"new\.tfw would be read with new\.tif by other tools"):
                upscale(made / "src.tif", made / "new.tif", model=nearest(4), overwrite=overwrite)
    finally:
        (made / "new.tfw").unlink()


@pytest.mark.parametrize("what", ["description", "card"])
def test_what_no_item_can_hold_is_told_before_the_work(tmp_path: Path, what: str) -> None:
    long = "x" * 2**24
    src = write_scene(tmp_path / "src.tif", pixels(3, 20, 30, "uint16"), names=["a", "b", "c"])
    model: Any = nearest(2)
    if what == "description":
        write_scene(src, pixels(3, 20, 30, "uint16"), names=[long[: 2**23], "b", "c"])
    else:
        model = FakeUpscaler(model.model, model.contract, name="card")
        object.__setattr__(model, "card", None)
        model = replace(model, hash=long)
    (tmp_path / "out").mkdir()
    with pytest.raises(GeomoeError):
        upscale(src, tmp_path / "out" / "o.tif", model=model, scale=2)
    assert left_over(tmp_path / "out") == []


def test_what_a_file_says_itself_is_what_it_is_and_the_seal_of_all_else(made: Path) -> None:
    own = {"GEOMOE_VERSION", "GEOMOE_MODEL", "GEOMOE_WEIGHTS", "GEOMOE_LAYER", "GEOMOE_ITEM"}
    for name, more in (("out", set()), ("map", {"GEOMOE_LEGEND"})):
        with open_scene(made / f"{name}.tif") as file:
            assert {tag for tag in file.tags if tag.startswith("GEOMOE_")} == own | more


def test_a_file_with_another_item_was_made_by_nobody(made: Path, tmp_path: Path) -> None:
    asked = Request.of(made / "src.tif", tmp_path / "out.tif", model=nearest(4), scale=4)
    item = tmp_path / "out.stac.json"
    for path in (made / "out.tif", made / "out.stac.json"):
        shutil.copy(path, tmp_path)
    assert is_made(asked)
    for change in ({"tile": 5}, {"torch": "other"}, {"scene": "0" * 64}):
        said = json.loads((made / "out.stac.json").read_text())
        said["properties"]["geomoe:configuration"] |= change
        item.write_text(json.dumps(said))
        assert not is_made(asked)
    item.unlink()
    assert not is_made(asked)


def test_the_bytes_of_a_file_do_not_depend_on_its_name(made: Path, tmp_path: Path) -> None:
    upscale(made / "src.tif", tmp_path / "other.tif", model=nearest(4), experts=tmp_path / "m.tif")
    assert (tmp_path / "other.tif").read_bytes() == (made / "out.tif").read_bytes()
    assert (tmp_path / "m.tif").read_bytes() == (made / "map.tif").read_bytes()


WRITTEN_BY_0_1 = Path(__file__).parent / "super_resolution" / "written_by_0_1"
MODELS = Path(__file__).parents[1] / "models" / "super_resolution"
WEIGHTS_OF_0_1 = str(MODELS / "weights_of_0_1" / "mfg_hmoe_light_x2.safetensors")


def test_what_0_1_wrote_is_verified() -> None:
    """It knew neither --conserve nor --precision, so its outputs say nothing of them."""
    found = verify(WRITTEN_BY_0_1 / "out.tif", weights=WEIGHTS_OF_0_1)
    assert found.faults == ()
    assert (found.facts["precision"], found.facts["conserve"]) == ("float32", "no")


def test_what_0_1_wrote_is_verified_beside_what_is_written_now(tmp_path: Path) -> None:
    """Both are of one model, whose item is written anew and says more."""
    shutil.copytree(WRITTEN_BY_0_1, tmp_path, dirs_exist_ok=True)
    src = write_scene(tmp_path / "src.tif", pixels(3, 12, 16, "uint8"))
    report = upscale(src, tmp_path / "new.tif", model=WEIGHTS_OF_0_1, scale=2)
    assert report.model_item is not None
    assert report.model_item.read_bytes() != (WRITTEN_BY_0_1 / report.model_item.name).read_bytes()
    for name in ("out.tif", "new.tif"):
        assert verify(tmp_path / name, weights=WEIGHTS_OF_0_1).faults == ()


@pytest.mark.parametrize(
    "change", [{"geomoe:contract": {"scale": 2}}, {"license": "MIT"}, {"mlm:new": 1}, {"geomoe:new": 1}]
)
def test_a_change_of_the_item_of_a_model_that_0_1_wrote_is_found(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    shutil.copytree(WRITTEN_BY_0_1, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("mfg_hmoe*.stac.json")
    item = json.loads(path.read_text())
    item["properties"] |= change
    path.write_text(json.dumps(item))
    assert len(verify(tmp_path / "out.tif", weights=WEIGHTS_OF_0_1).faults) >= 1
