"""What a model that gives the classes of pixels makes of a scene."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from rasterio.enums import ColorInterp

from geomoe.errors import GeomoeError
from geomoe.models.weights import LoadedModel, load, save
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline import Request, predict, verify
from geomoe.pipeline.job import is_made
from geomoe.raster.stac.item import read_item
from tests.models.test_map_models import CLASSES, COLOURS, tiny
from tests.models.test_weights import card_of
from tests.scenes import left_over, pixels, write_scene

BANDS = 5
NAMES = [f"b{i}" for i in range(BANDS)]


def weights(path: Path, radiometry: str = "values", **options: object) -> LoadedModel:
    model = tiny("unet_spatial_moe", **{"bands": BANDS, "mean": (30000.0,), "std": (9000.0,), **options})
    card = replace(card_of(model), model="unet_spatial_moe", task="segmentation", radiometry=radiometry)
    path.parent.mkdir(exist_ok=True)
    save(path, model, card)
    return load(str(path))


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return weights(tmp_path / "land.safetensors")


def whole(model: LoadedModel, data: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Logits of the model for all of a scene at once, ``[classes, H, W]``."""
    told = None if valid is None else torch.from_numpy(valid)[None]
    with torch.inference_mode():
        logits: np.ndarray = model.model(torch.from_numpy(data.astype(np.float32))[None], valid=told)[
            0
        ].numpy()
    return logits


def test_a_class_map_lies_on_the_grid_of_the_scene_with_names_and_colours(
    src: Path, dst: Path, model: LoadedModel
) -> None:
    data = pixels(BANDS, 37, 45, "uint16")
    write_scene(src, data, names=NAMES)
    done = predict(src, dst, model=model, device="cpu")
    with rasterio.open(src) as scene, rasterio.open(dst) as out:
        assert (out.transform, out.crs, out.shape) == (scene.transform, scene.crs, scene.shape)
        assert (out.dtypes, out.nodata, out.colorinterp) == (("uint8",), 0, (ColorInterp.palette,))
        assert [out.colormap(1)[i][:3] for i in (1, 2, 3)] == [(0, 255, 0), (0, 0, 255), (128, 128, 128)]
        assert np.array_equal(out.read(1), whole(model, data).argmax(0) + 1)
        assert json.loads(out.tags()["GEOMOE_LEGEND"])["classes"] == dict(zip("123", CLASSES, strict=True))
        assert out.tags()["GEOMOE_WEIGHTS"] == model.hash
    assert done.title == "classes of pixels"
    [band] = read_item(done.items[0])["assets"]["data"]["bands"]
    assert [each["title"] for each in band["classification:classes"]] == [*CLASSES, "no data"]
    assert [each.get("color_hint") for each in band["classification:classes"]][:3] == [
        colour[1:].upper() for colour in COLOURS
    ]


def test_tiles_are_what_the_whole_scene_is(src: Path, tmp_path: Path, model: LoadedModel) -> None:
    tiling = model.contract.tiling
    assert tiling is not None
    assert tiling.reach is not None
    assert tiling.reach <= tiling.margin
    write_scene(src, pixels(BANDS, 90, 101, "uint16"), names=NAMES)
    made = []
    for tile in (256, 20):
        maps = {name: tmp_path / f"{name}_{tile}.tif" for name in ("out", "experts", "confidence")}
        report = predict(src, maps.pop("out"), model=model, tile=tile, device="cpu", **maps)
        made.append([rasterio.open(path).read() for path in (report.output, *report.layers.values())])
    assert report.plan.tiles == 30
    for one, other in zip(*made, strict=True):
        assert np.array_equal(one, other)
    assert len(np.unique(made[0][0])) > 1
    assert len(np.unique(made[0][1][1])) > 1  # of the experts


def test_what_is_not_valid_has_no_class_and_does_not_count(
    src: Path, tmp_path: Path, model: LoadedModel
) -> None:
    data = pixels(BANDS, 40, 40, "uint16")
    data[data == 0] = 1
    data[:, 5:9, 3:20] = 0
    data[2, 20, 20] = 0  # one band alone
    write_scene(src, data, names=NAMES, nodata=0)
    maps = {"experts": tmp_path / "e.tif", "confidence": tmp_path / "c.tif"}
    predict(src, tmp_path / "o.tif", model=model, device="cpu", **maps)
    there = (data > 0).all(0)
    with rasterio.open(tmp_path / "o.tif") as out:
        assert np.array_equal(out.read(1) > 0, there)
        assert np.array_equal(out.dataset_mask() > 0, there)
        assert np.array_equal(out.read(1)[there], (whole(model, data, there).argmax(0) + 1)[there])
    for path in maps.values():
        with rasterio.open(path) as out:
            assert np.array_equal(out.read() > 0, np.broadcast_to(there, (out.count, 40, 40)))


def test_experts_of_a_coarser_grid_are_drawn_as_squares(src: Path, tmp_path: Path) -> None:
    model = weights(tmp_path / "deep.safetensors", experts_in="bottom")
    data = pixels(BANDS, 45, 38, "uint16")
    write_scene(src, data, names=NAMES)
    made = []
    for tile in (16, 256):
        place = tmp_path / f"e{tile}.tif"
        predict(src, tmp_path / f"o{tile}.tif", model=model, tile=tile, device="cpu", experts=place)
        with rasterio.open(place) as out:
            made.append(out.read())
            assert (
                json.loads(out.tags()["GEOMOE_LEGEND"])["unit"]
                == "squares of 4 x 4 pixels, one choice for each"
            )
    trace = RoutingTrace()
    with torch.inference_mode():
        model.model(torch.from_numpy(data.astype(np.float32))[None], trace=trace)
    chosen = trace[-1].members[:, 0].numpy().reshape(trace[-1].grid[1:]) + 1
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0][1], chosen.repeat(4, 0).repeat(4, 1)[:45, :38])
    assert len(np.unique(chosen)) > 1


def test_confidence_is_the_probability_of_the_class_on_the_map(
    src: Path, tmp_path: Path, model: LoadedModel
) -> None:
    data = pixels(BANDS, 16, 20, "uint16")
    write_scene(src, data, names=NAMES)
    predict(src, tmp_path / "o.tif", model=model, device="cpu", confidence=tmp_path / "c.tif")
    shares = torch.from_numpy(whole(model, data)).softmax(0)
    entropy = -(shares * shares.log()).sum(0) / np.log(len(CLASSES))
    with rasterio.open(tmp_path / "c.tif") as out:
        assert out.descriptions == ("confidence", "entropy")
        confident, uncertain = out.read() * np.array(out.scales)[:, None, None]
    assert confident == pytest.approx(shares.amax(0).numpy(), abs=0.5 / 255 + 1e-6)
    assert uncertain == pytest.approx(entropy.numpy(), abs=0.5 / 255 + 1e-6)


def test_a_scene_of_bytes_is_shown_in_0_to_1_where_the_card_says_so(
    src: Path, dst: Path, tmp_path: Path
) -> None:
    of_units = weights(tmp_path / "unit.safetensors", "unit")
    data = pixels(BANDS, 16, 20, "uint8")
    predict(write_scene(src, data, names=NAMES), dst, model=of_units, device="cpu")
    with rasterio.open(dst) as out:
        assert np.array_equal(out.read(1), whole(of_units, data / np.float32(255)).argmax(0) + 1)


def test_a_class_map_goes_on_where_it_was_with_the_same_bytes(
    src: Path, dst: Path, model: LoadedModel
) -> None:
    class Cut:
        def __init__(self) -> None:
            self.left = 4

        def start(self, *_: object) -> None: ...

        def close(self) -> None: ...

        def advance(self) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    write_scene(src, pixels(BANDS, 60, 60, "uint16"), names=NAMES)
    finished = predict(src, dst.with_name("at_once.tif"), model=model, tile=20, device="cpu").output
    with pytest.raises(KeyboardInterrupt):
        predict(src, dst, model=model, tile=20, device="cpu", progress=Cut())
    assert predict(src, dst, model=model, tile=20, device="cpu").resumed == 4
    assert dst.read_bytes() == finished.read_bytes()


def test_a_class_map_is_verified_and_known_as_made(src: Path, dst: Path, model: LoadedModel) -> None:
    write_scene(src, pixels(BANDS, 30, 30, "uint16"), names=NAMES)
    asked = Request.of(src, dst, model=model, scale=None, device="cpu", confidence=dst.with_name("c.tif"))
    assert not is_made(asked)
    predict(src, dst, model=model, device="cpu", confidence=dst.with_name("c.tif"))
    assert is_made(asked)
    assert not is_made(replace(asked, nodata=7.0))
    for path in (dst, dst.with_name("c.tif")):
        assert verify(path, source=src, weights=str(model.path)).faults == ()
    said = read_item(dst.with_name("dst.stac.json"))["properties"]
    assert said["title"] == "src.tif, classes of pixels by land"
    assert "super-resol" not in json.dumps(said)
    of_model = read_item(next(dst.parent.glob("land.*.stac.json")))["properties"]
    assert of_model["mlm:tasks"] == ["semantic-segmentation"]
    [given], [made] = of_model["mlm:input"], of_model["mlm:output"]
    assert "5 bands, all at once, in the order in which the model learned them" in given["description"]
    assert made["result"]["shape"] == [-1, 3, -1, -1]
    assert [
        (each["value"], each["title"], each["color_hint"]) for each in made["classification:classes"]
    ] == [
        (i, name, colour[1:].upper())
        for i, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=True), 1)
    ]
    names = dst.with_name("dst.tif.aux.xml")
    names.write_bytes(names.read_bytes().replace(b"river", b"water"))
    assert verify(dst).faults == (f"{names.name} is beside it, which other tools read with it: remove it",)
    names.unlink()  # it is for other tools alone
    assert verify(dst).faults == ()
    dst.write_bytes(dst.read_bytes()[:-1] + b"\0")
    assert verify(dst).faults


@pytest.mark.parametrize(
    "other",
    [
        {"mean": (20000.0,)},
        {"classes": (*CLASSES[1:], CLASSES[0])},
        {"colours": ("#000000", "#111111", "#222222")},
        {"radiometry": "unit"},
    ],
)
def test_what_a_mended_card_says_counts_though_the_tensors_are_the_same(
    src: Path, dst: Path, model: LoadedModel, other: dict[str, Any]
) -> None:
    write_scene(src, pixels(BANDS, 12, 12, "uint16"), names=NAMES)
    predict(src, dst, model=model, device="cpu")
    mended = weights(dst.parent / "mended" / "land.safetensors", **other)
    assert mended.hash == model.hash
    asked = Request.of(src, dst, model=model, scale=None, device="cpu")
    assert is_made(asked)
    assert not is_made(replace(asked, model=mended))
    predict(src, other_dst := dst.with_name("mended.tif"), model=mended, device="cpu")
    for path, own, wrong in ((dst, model, mended), (other_dst, mended, model)):
        if "radiometry" not in other:  # of which no item of a model has its name
            assert verify(path, weights=str(own.path)).faults == ()
        [fault] = verify(path, weights=str(wrong.path)).faults
        assert fault.startswith("land has the tensors that made it, with another ")


def test_gdal_knows_the_classes_by_name(src: Path, dst: Path, model: LoadedModel) -> None:
    write_scene(src, pixels(BANDS, 30, 30, "uint16"), names=NAMES)
    names = dst.with_name("dst.tif.aux.xml")
    names.write_text("of another file")
    with pytest.raises(GeomoeError, match=r"dst\.tif\.aux\.xml exists already"):
        predict(src, dst, model=model, device="cpu")
    predict(src, dst, model=model, device="cpu", overwrite=True)
    found = [each.text for each in ElementTree.parse(names).iter("Category")]
    assert found == ["no data", *CLASSES]
    with rasterio.open(dst) as out, rasterio.Env():
        rasterio.shutil.copy(out, dst.with_name("copy.tif"), driver="GTiff")  # GDAL copies what it knows
    copied = ElementTree.parse(dst.with_name("copy.tif.aux.xml"))
    assert [each.text for each in copied.iter("Category")] == ["no data", *CLASSES]
    assert left_over(dst.parent) == sorted(
        ["copy.tif", "copy.tif.aux.xml", "dst.stac.json", "dst.tif", "dst.tif.aux.xml", "land.safetensors",
         next(dst.parent.glob("land.*.stac.json")).name, "src.tif"]
    )  # fmt: skip


def test_a_cube_is_made_into_a_map(tmp_path: Path, model: LoadedModel) -> None:
    data = pixels(BANDS, 21, 18, "uint16")
    np.savez(tmp_path / "a.npz", cube=np.moveaxis(data, 0, 2), labels=np.zeros((21, 18), int))
    done = predict(tmp_path / "a.npz", tmp_path / "a.tif", model=model, device="cpu")
    with rasterio.open(done.output) as out:
        assert np.array_equal(out.read(1), whole(model, data).argmax(0) + 1)
    assert "the scene has no georeference, and neither will the output" in done.plan.notes
    assert verify(done.output, source=tmp_path / "a.npz").faults == ()
    [link] = [each for each in read_item(done.items[0])["links"] if each["rel"] == "derived_from"]
    assert (link["href"], link["type"]) == ("./a.npz", "application/zip")
