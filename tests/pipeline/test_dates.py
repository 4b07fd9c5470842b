"""Two dates of one place, given as two files, through a model that compares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from torch import Tensor, nn, stack

from geomoe.errors import GeomoeError
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline import Request, plan_scene, predict, read_manifest, verify
from geomoe.pipeline.job import is_made
from geomoe.raster.formats.dates import open_dates
from geomoe.raster.stac.item import read_item
from tests.pipeline.fakes import FakeUpscaler, nearest
from tests.pipeline.test_blend import pooled
from tests.scenes import UTM, left_over, pixels, write_scene


class Differs(nn.Module):
    """Changed where the first band of the second date is brighter than that of the first."""

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, present: Tensor | None = None) -> Tensor:
        brighter = x[:, 1] - x[:, 0]
        return stack([-brighter, brighter], 1)


def differs() -> FakeUpscaler:
    given = Input(3, sensors={"before": 1, "after": 2})
    output = Output("classes", 2, classes=("unchanged", "changed"))
    return FakeUpscaler(Differs(), ModelContract({"image": given}, {"classes": output}, Tiling(1, 16, 2, 2)))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    data = pixels(1, 24, 37, "uint8") | 1
    data[:, :3] = 0
    return write_scene(tmp_path / "before.tif", data, nodata=0)


@pytest.fixture
def after(tmp_path: Path) -> Path:
    data = pixels(2, 24, 37, "uint16", seed=1) | 1
    data[1, :, :4] = 0
    path = write_scene(tmp_path / "after.tif", data, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2024-06-01T10:00:00Z")
    return path


def test_a_map_of_change_has_data_where_both_dates_have_and_names_both(
    before: Path, after: Path, dst: Path
) -> None:
    done = predict(before, dst, model=differs(), after=after)
    with rasterio.open(before) as one, rasterio.open(after) as other, rasterio.open(dst) as made:
        first, second, found = one.read(1), other.read(), made.read(1)
        assert (made.transform, made.crs) == (one.transform, one.crs)
    nowhere = (first == 0) | (second == 0).any(0)
    assert np.array_equal(found == 0, nowhere)
    assert {*np.unique(found[~nowhere])} == {1, 2}
    item = read_item(done.items[0])
    said = item["properties"]
    assert said["title"] == "before.tif and after.tif, classes of pixels by fake"
    assert [source["name"] for source in said["geomoe:sources"]] == ["before.tif", "after.tif"]
    assert {"./before.tif", "./after.tif"} <= {link["href"] for link in item["links"]}
    assert said["geomoe:configuration"]["bands"] == [1, 2, 3]
    assert verify(dst, source=before, after=after).faults == ()
    assert verify(dst, source=before).faults
    assert is_made(Request.of(before, dst, model=differs(), scale=None, after=after))
    after.write_bytes(after.read_bytes() + b" ")
    assert verify(dst, source=before, after=after).faults
    assert not is_made(Request.of(before, dst, model=differs(), scale=None, after=after))


def test_both_times_are_said_and_a_wrong_order_told(before: Path, after: Path, tmp_path: Path) -> None:
    with rasterio.open(before, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2023-06-01T10:00:00Z")
    with open_dates(before, after) as scene:
        earlier, later = scene.acquired.split("/")  # type: ignore[union-attr]
        assert (earlier[:4], later[:4]) == ("2023", "2024")
        assert not any("before" in note for note in scene.notes)
    said = read_item(predict(before, tmp_path / "o.tif", model=differs(), after=after).items[0])["properties"]
    assert (said["datetime"], said["start_datetime"], said["end_datetime"]) == (None, earlier, later)
    with open_dates(after, before) as scene:
        assert "before.tif was taken before after.tif" in scene.notes[-1]


@pytest.mark.parametrize(
    ("shape", "place", "says"),
    [
        ((24, 37), {"crs": "EPSG:32619"}, "differ in CRS: EPSG:32618 and EPSG:32619"),
        ((24, 38), {}, "differ in size: 37 x 24 and 38 x 24 pixels"),
        ((24, 37), {"transform": UTM * Affine.translation(2.5, -1)},
         "differ in place: the second begins 2.5 pixels right of the first and -1 below it"),
        ((24, 37), {"transform": UTM * Affine.scale(2)}, "differ in pixels: 10 x 10 and 20 x 20 of"),
        ((24, 37), {"crs": None, "transform": None}, "differ in CRS: EPSG:32618 and None"),
    ],
)  # fmt: skip
def test_dates_that_do_not_lie_on_one_grid_are_refused_with_what_differs(
    before: Path, tmp_path: Path, shape: tuple[int, int], place: dict[str, object], says: str
) -> None:
    after = write_scene(tmp_path / "other.tif", pixels(2, *shape, "uint8"), **place)
    stood = left_over(tmp_path)
    with pytest.raises(GeomoeError, match=says) as caught:
        predict(before, tmp_path / "o.tif", model=differs(), after=after)
    assert "\n" not in str(caught.value)
    assert "before.tif and other.tif" in str(caught.value)
    assert left_over(tmp_path) == stood


def test_models_and_files_that_do_not_go_together_are_refused(before: Path, after: Path, dst: Path) -> None:
    with pytest.raises(GeomoeError, match="compares no two dates, which are called before and after; leave"):
        predict(before, dst, model=pooled(), after=after)
    with pytest.raises(GeomoeError, match="makes an image, of one date; leave out --after"):
        predict(before, dst, model=nearest(), after=after)
    with pytest.raises(GeomoeError, match="3 are wanted; the second date is given by --after"):
        predict(before, dst, model=differs())
    with pytest.raises(GeomoeError, match="is the input itself"):
        predict(before, after, model=differs(), after=after, overwrite=True)
    with pytest.raises(GeomoeError, match=r"before\.tif has 1 bands of data, 2 are wanted|has no band"):
        predict(before, dst, model=differs(), after=before)
    assert not dst.exists()


def test_bands_are_chosen_of_each_date_and_one_file_may_hold_both(tmp_path: Path, dst: Path) -> None:
    data = pixels(3, 20, 20, "uint8") | 1
    write_scene(tmp_path / "stack.tif", data)
    write_scene(tmp_path / "one.tif", data[:1], names=["VV"])
    write_scene(tmp_path / "two.tif", data[1:], names=["a", "b"])
    predict(tmp_path / "one.tif", dst, model=differs(), after=tmp_path / "two.tif")
    predict(tmp_path / "stack.tif", tmp_path / "s.tif", model=differs())
    with rasterio.open(dst) as both, rasterio.open(tmp_path / "s.tif") as stacked:
        assert np.array_equal(both.read(), stacked.read())
    plan = plan_scene(tmp_path / "one.tif", tmp_path / "x.tif", model=differs(), scale=None,
                      after=tmp_path / "two.tif")  # fmt: skip
    assert (plan.names, plan.bands) == (("VV", "a", "b"), (1, 2, 3))


def test_what_one_date_lacks_has_no_class_in_one_file_of_both_either(tmp_path: Path, dst: Path) -> None:
    data = pixels(3, 20, 20, "uint8") | 1
    data[2, 4:9] = 0
    data[0, :, 15:] = 0
    predict(write_scene(tmp_path / "stack.tif", data, nodata=0), dst, model=differs())
    with rasterio.open(dst) as made:
        assert np.array_equal(made.read(1) == 0, (data == 0).any(0))


def test_sensors_of_other_names_are_no_dates_and_said(before: Path, after: Path, dst: Path) -> None:
    given = Input(3, sensors={"pre": 1, "post": 2})
    output = Output("classes", 2, classes=("unchanged", "changed"))
    model = FakeUpscaler(Differs(), ModelContract({"image": given}, {"classes": output}, Tiling(1, 16, 2, 2)))
    with pytest.raises(GeomoeError, match="called before and after, its sensors are pre and post; leave out"):
        predict(before, dst, model=model, after=after)


def test_a_manifest_has_a_column_for_the_second_date(before: Path, after: Path, tmp_path: Path) -> None:
    listed = tmp_path / "dates.csv"
    listed.write_text("src,after,dst\nbefore.tif,after.tif,o.tif\n")
    [request] = read_manifest(listed, model="x", scale=None)
    assert (request.src, request.after) == (str(before), str(after))
    listed.write_text("src,after,dst\nbefore.tif,after.tif,after.tif\n")
    with pytest.raises(GeomoeError, match=r"after\.tif is the scene of line 2"):
        read_manifest(listed, model="x", scale=None)
