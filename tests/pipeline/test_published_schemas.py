"""Items by the schemas that the extensions' authors publish, where a folder of them is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource

from geomoe.errors import GeomoeError
from geomoe.models import available_weights, load
from geomoe.pipeline import upscale
from geomoe.pipeline.provenance import model_item
from geomoe.raster.stac.item import EXTENSIONS, check_item, read_item
from tests.pipeline.fakes import nearest
from tests.raster.test_stac import WRONG, WRONG_MODEL, a_model, an_item
from tests.scenes import pixels, write_scene

FOLDER = os.environ.get("GEOMOE_STAC_SCHEMAS", "")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="GEOMOE_STAC_SCHEMAS names no folder of the extensions' published schemas"
)
LAEA = "+proj=laea +lat_0=51.3 +lon_0=9.7 +ellps=WGS84 +units=m"


@pytest.fixture(scope="module")
def published() -> dict[str, Validator]:
    """Of each schema in the folder its validator, by the address that names it in an item."""
    schemas = [json.loads(path.read_text()) for path in Path(FOLDER).glob("*.json")]
    found = {schema["$id"].rstrip("#"): schema for schema in schemas}
    # Of processing 1.1 MLM takes what an expression is, which is the same in 1.2.
    older = {EXTENSIONS["processing"].replace("v1.2.0", "v1.1.0"): found[EXTENSIONS["processing"]]}
    known: Registry[Any] = Registry().with_resources(
        (address, Resource.from_contents(schema)) for address, schema in {**older, **found}.items()
    )
    return {address: validator_for(schema)(schema, registry=known) for address, schema in found.items()}


def _wrong(published: dict[str, Validator], item: dict[str, Any]) -> list[str]:
    assert item["stac_extensions"]
    return [
        f"{address}: {error.json_path}: {error.message}"
        for address in item["stac_extensions"]
        for error in published[address].iter_errors(item)
    ]


@pytest.mark.parametrize(
    "scene",
    [
        {"names": ["B04", "B03", "B02"], "nodata": 0},
        {"transform": None, "crs": None},
        {"crs": LAEA},
        {"bands": 1, "dtype": "uint8"},
        {"bands": 5, "dtype": "float32", "nodata": float("nan")},
    ],
    ids=["usual", "no place", "no code", "one band", "many bands"],
)
def test_what_upscale_writes(published: dict[str, Validator], tmp_path: Path, scene: dict[str, Any]) -> None:
    data = pixels(scene.pop("bands", 3), 12, 16, scene.pop("dtype", "uint16"))
    src = write_scene(tmp_path / "src.tif", data, **scene)
    layers = {name: tmp_path / f"{name}.tif" for name in ("experts", "consistency")}
    report = upscale(src, tmp_path / "out.tif", model=nearest(2), scale=2, **layers)
    written = sorted(tmp_path.glob("*.stac.json"))
    assert written == sorted([*report.items, report.model_item])
    assert [_wrong(published, read_item(path)) for path in written] == [[]] * 4


@pytest.mark.parametrize("name", [name for name in available_weights() if name.startswith("mfg_hmoe")])
def test_what_weights_that_ship_write(published: dict[str, Validator], tmp_path: Path, name: str) -> None:
    src = write_scene(tmp_path / "src.tif", pixels(3, 12, 16, "uint8"))
    scale = load(name).contract.scale
    upscale(src, tmp_path / "out.tif", model=name, scale=scale, reliability=tmp_path / "reliability.tif")
    written = [read_item(path) for path in sorted(tmp_path.glob("*.stac.json"))]
    assert [_wrong(published, item) for item in written] == [[]] * 3
    assert json.loads(json.dumps(model_item(load(name)))) in written


def test_what_0_1_wrote(published: dict[str, Validator]) -> None:
    written = list((Path(__file__).parent / "super_resolution" / "written_by_0_1").glob("*.stac.json"))
    assert [_wrong(published, read_item(path)) for path in written] == [[]] * 2


def test_what_the_schemas_here_refuse_is_refused(published: dict[str, Validator]) -> None:
    accepted = []
    for case, change in {**WRONG, **WRONG_MODEL}.items():
        item = json.loads(json.dumps(an_item() if case in WRONG else a_model()))
        item["properties"]["processing:lineage"] = "none"  # what `upscale` adds to the item of a raster
        assert _wrong(published, item) == []
        change(item)
        with pytest.raises(GeomoeError) as caught:
            check_item(item, "x")
        # Schemas of the core are not in the folder; pystac carries them, and another test uses them.
        if "STAC item (item)" not in str(caught.value) and not _wrong(published, item):
            accepted.append(case)
    assert accepted == ["checksum that is cut"]  # what a multihash is, the text of the extension says alone
