"""Several sensors on one grid: what a sample lacks, who is told, and that nothing of it is seen."""

import json

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from torch import nn

from geomoe import GeomoeError, evaluate, load
from geomoe.cli.main import main
from geomoe.data.crops import CropStream, LabelledImage, band_statistics, shown
from geomoe.data.places import whole_image
from geomoe.layers.sensors import by_band, presence, sensor_slices, without
from geomoe.models.contract import Input
from geomoe.models.patch_map import SensorPatchConfig, SensorPatchMap
from geomoe.models.registry import _ENTRIES, register
from geomoe.tasks.fit import fit
from geomoe.tasks.segmentation_data import SegmentationData
from tests.tasks.test_segmentation import cube

SENSORS = {"spectra": 3, "height": 1}
CLASSES = ("a", "b")


def image(missing_height=True, side=6):
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.normal(size=(4, side, side)).astype(np.float32))
    present = np.ones((2, side, side), bool)
    if missing_height:
        present[1, :, : side // 2] = False
        data[3, :, : side // 2] = -1e30
    mask = torch.from_numpy(rng.integers(0, 2, (side, side)).astype(np.int16))
    return LabelledImage("plot", data, mask, whole_image((side, side), "fit"), None, SENSORS, present)


def test_bands_of_sensors():
    assert sensor_slices(SENSORS) == {"spectra": slice(0, 3), "height": slice(3, 4)}
    present = torch.tensor([[[True]], [[False]]])
    assert by_band(present, SENSORS).flatten().tolist() == [True, True, True, False]
    assert without(torch.ones(5, 2, 1, 1, dtype=torch.bool), SENSORS, "spectra")[3].flatten().tolist() == [
        False,
        True,
    ]
    valid = torch.tensor([[[True, False]]])
    assert presence(torch.zeros(1, 4, 1, 2), SENSORS, valid=valid).tolist() == [[[[True, False]]] * 2]


def test_statistics_are_of_what_each_sensor_measured():
    one = image()
    mean, std = band_statistics([one])
    height = one.image[3, :, 3:]
    assert mean[3] == pytest.approx(float(height.mean()), rel=1e-4)
    assert std[3] == pytest.approx(float(height.std(unbiased=False)), rel=1e-4)
    assert mean[0] == pytest.approx(float(one.image[0].mean()), rel=1e-4)


def test_what_a_sensor_lacks_is_filled_and_said():
    fill = (1.0, 2.0, 3.0, 4.0)
    sample = shown(image(), "fit", fill)
    assert sample["present"].sum((1, 2)).tolist() == [36, 18]
    assert (sample["image"][3, :, :3] == 4).all()
    assert torch.equal(sample["image"][:3], image().image[:3])
    assert sample["valid"].all()


def test_sensors_are_taken_from_crops_but_never_all():
    fill = (0.0,) * 4
    plain = CropStream([image(False)], fill, 3, "pixels", 0, 0, 200)
    some = CropStream([image(False)], fill, 3, "pixels", 0, 0, 200, missing=0.7)
    patterns = torch.stack(
        [sample["present"].any(-1).any(-1) for sample in map(some.__getitem__, range(200))]
    )  # [200, 2]
    assert patterns.any(1).all()
    assert 0.6 < 1 - patterns.all(1).float().mean() < 0.8
    assert 0.25 < (~patterns[:, 0]).float().mean() < 0.45
    for i in range(200):
        a, b = plain[i], some[i]
        there = by_band(b["present"], SENSORS)
        assert torch.equal(a["mask"], b["mask"])
        assert torch.equal(torch.where(there, a["image"], 0.0), b["image"])


class _Pair(SensorPatchMap):
    """Says what the means of the patch are, and which sensors there are."""

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(config.bands + len(config.sensors), len(config.classes))

    def label(self, patches, trace, present):
        return self.linear(torch.cat([patches.mean((2, 3)), present.to(patches)], 1))


def pair():
    torch.manual_seed(0)
    config = SensorPatchConfig(bands=4, sensors=SENSORS, classes=CLASSES, patch=3)
    return _Pair(config).eval()


def test_what_is_absent_is_not_seen():
    model, x = pair(), torch.randn(2, 4, 5, 5)
    present = torch.ones(2, 2, 5, 5, dtype=torch.bool)
    present[:, 1, :, :3] = False
    with torch.inference_mode():
        clean = model(x, present=present)
        spoiled = x.clone()
        spoiled[:, 3, :, :3] = float("nan")
        assert torch.equal(model(spoiled, present=present), clean)
        assert not torch.allclose(model(x), clean)
    assert model.contract.inputs == {"image": Input(4, sensors=SENSORS)}
    assert model.contract.record()["sensors"] == SENSORS


def test_nothing_is_said_where_no_sensor_is():
    model, x = pair(), torch.randn(1, 4, 5, 5)
    present = torch.ones(1, 2, 5, 5, dtype=torch.bool)
    present[:, :, 2] = False
    with torch.inference_mode():
        out = model(x, present=present)
        assert (out[:, :, 2] == 0).all()
        assert (out[:, :, 1] != 0).all()
        assert torch.equal(out, model(x, valid=present[:, 0]))
        assert torch.equal(model(x, present=torch.zeros_like(present)), torch.zeros(1, 2, 5, 5))


@pytest.mark.parametrize(
    ("sensors", "said"),
    [
        ({"one": 4}, "of two or more"),
        ({"one": 2, "two": 1}, "have 3 bands in all, bands=4"),
        ({"one": 4, "two": 0}, "of two or more"),
    ],
)
def test_sensors_that_cannot_be(sensors, said):
    with pytest.raises(ValueError, match=said):
        SensorPatchConfig(bands=4, sensors=sensors, classes=CLASSES)


def test_a_cube_is_split_in_sensors(tmp_path):
    path = cube(tmp_path / "stripes.npz")
    data = SegmentationData(str(path), block=8, sensors={"visible": 3, "infrared": 2}, missing=0.5)
    assert data.sensors == {"visible": 3, "infrared": 2}
    [(_, sample)] = data.samples("test").samples
    assert sample["present"].shape == (2, 48, 48)
    assert torch.equal(sample["present"][0], sample["valid"])
    with pytest.raises(GeomoeError, match="5 in all, as stripes has them"):
        SegmentationData(str(path), sensors={"visible": 3, "infrared": 1}).bands  # noqa: B018
    with pytest.raises(GeomoeError, match="stripes is of one sensor"):
        SegmentationData(str(path), missing=0.5).bands  # noqa: B018


@pytest.fixture
def registered():
    register("pair_for_tests", _Pair, SensorPatchConfig, gives="classes", what="Means of patches")
    yield "pair_for_tests"
    del _ENTRIES["pair_for_tests"]


@pytest.fixture
def fitted(registered, tmp_path):
    path = cube(tmp_path / "stripes.npz")
    out = tmp_path / "run"
    fit(
        [
            "--model=Segmentation", "--data=SegmentationData", f"--model.model={registered}",
            "--model.options={patch: 3}", f"--data.root={path}", "--data.block=8", "--data.patch=3",
            "--data.centre=true", "--data.sensors={visible: 3, infrared: 2}", "--data.missing=0.5",
            "--data.batch_size=32", "--data.steps_per_epoch=20", "--trainer.max_steps=60",
            "--model.learning_rate=3e-2", f"--checkpoint.dirpath={out}",
            f"--trainer.logger.init_args.save_dir={out}",
            f"--trainer.default_root_dir={out}", "--trainer.accelerator=cpu",
        ]
    )  # fmt: skip
    return out / "best.safetensors", path


def test_weights_know_their_sensors_and_are_scored_without_one(fitted, capsys):
    weights, path = fitted
    loaded = load(str(weights))
    assert loaded.contract.sensors == {"visible": 3, "infrared": 2}
    whole = evaluate(loaded, path)
    some = evaluate(loaded, path, without=["infrared"])
    assert (whole.degradation, some.degradation) == ("", "without infrared")
    assert whole.overall.values["oa"] != some.overall.values["oa"]
    command = ["evaluate", "--model", str(weights), "--data", str(path), "--json", "-"]
    main([*command, "--without", "infrared"])
    assert json.loads(capsys.readouterr().out)["overall"]["scores"]["oa"] == some.overall.values["oa"]
    for names, said in [(["sar"], "has no sensor 'sar'; it has: visible, infrared"),
                        (["visible", "infrared"], "leave one of them")]:  # fmt: skip
        with pytest.raises(GeomoeError, match=said):
            evaluate(loaded, path, without=names)


def test_a_map_of_a_scene_that_lacks_a_sensor(fitted, tmp_path):
    """In half of it, which is seen; and everywhere, which the file says."""
    weights, path = fitted
    values = np.moveaxis(np.load(path)["cube"], 2, 0).astype(np.float32)
    half, none = values.copy(), values.copy()
    half[3:, :, :24], none[3:] = np.nan, np.nan
    for name, array in (("whole", values), ("half", half), ("none", none)):
        place = {"transform": from_origin(500000, 4500000, 20, 20), "crs": "EPSG:32616"}
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", width=48, height=48, count=5, dtype="float32",
            nodata=np.nan, **place,
        ) as file:  # fmt: skip
            file.write(array)
        main(["predict", str(tmp_path / f"{name}.tif"), "--model", str(weights),
              str(tmp_path / f"{name}_map.tif")])  # fmt: skip
    maps, tags = {}, {}
    for name in ("whole", "half", "none"):
        with rasterio.open(tmp_path / f"{name}_map.tif") as file:
            maps[name], tags[name] = file.read(1), file.tags()
    assert all((found > 0).all() for found in maps.values())
    assert np.array_equal(maps["half"][:, 26:], maps["whole"][:, 26:])
    assert np.array_equal(maps["half"][:, :22], maps["none"][:, :22])
    assert not np.array_equal(maps["none"], maps["whole"])
    assert tags["none"]["GEOMOE_MISSING_SENSORS"] == "infrared"
    assert "GEOMOE_MISSING_SENSORS" not in tags["half"]
    item = json.loads((tmp_path / "none_map.stac.json").read_text())
    assert "infrared is missing: a band of it has no valid pixel" in item["properties"]["geomoe:remarks"]
