"""``geomoe predict --instances``: things of a scene, numbered alike by all tiles, and their polygons."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from geomoe.cli.main import cli
from geomoe.errors import GeomoeError
from geomoe.layers.panoptic import centre_targets, find_centres, group_pixels
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.mfiae import Mfiae, MfiaeConfig
from geomoe.models.weights import LoadedModel, load, save
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline import predict, verify
from geomoe.pipeline.layers.instances import Instances
from geomoe.raster.read.scene import open_file
from tests.models.test_weights import card_of
from tests.pipeline.fakes import FakeUpscaler
from tests.scenes import write_scene

HEIGHT, WIDTH = 150, 190
MARGIN = 100
LONG = 999
"""The number of a house that is longer than a pixel may point."""
CLASSES = ("house", "ground")


class Told(nn.Module):
    """Says what bands say: heat, rows and columns to a centre plus 127, and whether it is a house."""

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        house = x[:, 3:] - 0.5
        return {
            "classes": torch.cat([house, -house], 1),
            "centres": x[:, :1],
            "offsets": (x[:, 1:3] * 255).round() - 127,
        }

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        return self.answers(x)["classes"]


def told(
    *, things: tuple[str, ...] = ("house",), margin: int = MARGIN, reach: int | None = 0
) -> FakeUpscaler:
    contract = ModelContract(
        {"image": Input(4)},
        {"classes": Output("classes", 2, classes=CLASSES, things=things)},
        Tiling(multiple=1, tile=40, margin=margin, reach=reach),
        beside={"centres": 1, "offsets": 2},
    )
    return FakeUpscaler(Told(), contract)


@pytest.fixture(scope="module")
def houses() -> np.ndarray:
    """Numbers of houses, some of which touch, ``[H, W]``; 0 between them."""
    rng, found = np.random.default_rng(0), np.zeros((HEIGHT, WIDTH), np.int64)
    corners = product(range(0, HEIGHT, 21), range(0, WIDTH, 21))
    for number, (y, x) in enumerate(corners, 1):
        high, wide = rng.integers(12, 22, 2)
        found[y : y + high, x : x + wide] = number
    found[63:84] = 0
    found[70:76, :180] = LONG
    return found


@pytest.fixture
def scene(houses: np.ndarray, tmp_path: Path) -> Path:
    heat, ways = centre_targets(torch.from_numpy(houses)[None], 2.0)
    noise = np.random.default_rng(1).integers(-2, 3, ways.shape)
    points = np.clip(ways.numpy() + noise, -127, 128)[0] + 127
    bands = [heat.numpy()[0, 0] * 255, *points, (houses > 0) * 255]
    return write_scene(tmp_path / "town.tif", np.stack(bands).round().astype(np.uint8))


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        made: np.ndarray = file.read(1)
    return made


def whole(scene: Path) -> np.ndarray:
    """The same by what is said of all of the scene at once."""
    with rasterio.open(scene) as file:
        x = torch.from_numpy(file.read().astype(np.float32) / np.float32(255))[None]
    said = Told().answers(x)
    centres = find_centres(said["centres"][0, 0])
    where = said["classes"][0].argmax(0) == 0
    numbers = group_pixels(said["offsets"][0], centres, where)
    rows, columns = centres.long().T
    found: np.ndarray = torch.cat([torch.zeros(1).long(), rows * WIDTH + columns + 1])[numbers].numpy()
    return found


@pytest.mark.parametrize("tile", [16, 40, 200])
def test_tiles_number_things_as_the_whole_scene_does(
    scene: Path, houses: np.ndarray, tmp_path: Path, tile: int
) -> None:
    done = predict(
        scene, tmp_path / "map.tif", model=told(), device="cpu", tile=tile, instances=tmp_path / "i.tif"
    )
    made = read(tmp_path / "i.tif")
    np.testing.assert_array_equal(made, whole(scene))
    assert not made[houses == 0].any()
    assert not made[70:76, 170:180].any(), "farther from the centre than a pixel may point"
    for number in np.unique(houses)[1:]:
        [value], [count] = np.unique(made[(houses == number) & (made > 0)], return_counts=True)
        assert (made == value).sum() == count, "no other house has its number"
        assert number == LONG or count == (houses == number).sum()
        row, column = divmod(value - 1, WIDTH)
        assert abs(np.argwhere(houses == number).mean(0) - (row, column)).max() < 1
    with rasterio.open(tmp_path / "i.tif") as file:
        assert (file.dtypes, file.nodata, file.descriptions) == (("uint32",), 0, ("instance",))
        legend = json.loads(file.tags()["GEOMOE_LEGEND"])
    assert legend["things"] == ["house"]
    assert set(done.layers) == {"instances"}
    assert verify(tmp_path / "i.tif", source=scene).faults == ()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("higher", [False, True])
def test_what_decides_lies_as_far_away_as_it_may(
    tmp_path: Path, turned: bool, mirrored: bool, higher: bool
) -> None:
    """A pixel at the side of a tile points 64 far, its centre lies 32 beyond; 3 beyond that a higher one."""
    data = np.full((4, 9, 300), 127, np.uint8)
    data[0], data[3] = 0, 0
    data[3, 4, 150], data[1:3, 4, 150] = 255, (127, 127 - 64)
    data[0, 4, 150 - 64 - 32] = 128
    data[0, 4, 150 - 64 - 32 - 3] = 255 * higher
    if mirrored:
        data = data[..., ::-1]
        data[2] = 254 - data[2]
    if turned:
        data = data.transpose(0, 2, 1)[[0, 2, 1, 3]]
    src = write_scene(tmp_path / "town.tif", np.ascontiguousarray(data))
    for tile in (50 if not mirrored else 150, 300):
        predict(
            src, tmp_path / f"{tile}.tif", model=told(margin=99), device="cpu", tile=tile,
            instances=tmp_path / f"i{tile}.tif",
        )  # fmt: skip
        assert (read(tmp_path / f"i{tile}.tif") > 0).sum() == (not higher)


def test_a_long_plateau_is_the_same_in_all_tiles(tmp_path: Path) -> None:
    data = np.full((4, HEIGHT, WIDTH), 127, np.uint8)
    data[0], data[3] = 0, 0
    data[0, 74:76, 5:185], data[3, 60:90] = 200, 255
    src = write_scene(tmp_path / "town.tif", data)
    for tile in (16, 40, 200):
        made = tmp_path / f"{tile}.tif"
        predict(
            src, tmp_path / "map.tif", model=told(), device="cpu", tile=tile, instances=made, overwrite=True
        )
        assert set(np.unique(read(made))) == {0, 74 * WIDTH + 5 + 1}


def test_numbers_end_with_four_bytes(scene: Path) -> None:
    [output] = told().contract.outputs.values()
    with open_file(scene) as source:
        layer = Instances(output)
        layer.metadata(replace(source, width=2**16, height=2**16 - 1), (1,))
        with pytest.raises(GeomoeError, match="65536 x 65536 pixels, more than instances can be numbered in"):
            layer.metadata(replace(source, width=2**16, height=2**16), (1,))


@pytest.mark.parametrize("name", ["centres", "offsets"])
def test_what_is_no_number_is_refused(scene: Path, tmp_path: Path, name: str) -> None:
    class Broken(Told):
        def answers(self, x: Tensor, *given: object, **options: object) -> dict[str, Tensor]:
            said = super().answers(x)
            return {**said, name: said[name] * torch.nan}

    model = replace(told(), model=Broken())
    with pytest.raises(GeomoeError, match="fake gave NaN or infinity at columns"):
        predict(scene, tmp_path / "map.tif", model=model, device="cpu", instances=tmp_path / "i.tif")
    predict(scene, tmp_path / "map.tif", model=model, device="cpu")


def test_the_class_map_is_the_same_with_and_without(scene: Path, tmp_path: Path) -> None:
    predict(scene, tmp_path / "a.tif", model=told(), device="cpu", instances=tmp_path / "i.tif")
    predict(scene, tmp_path / "b.tif", model=told(), device="cpu")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), read(tmp_path / "b.tif"))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (told(things=()), "fake knows no instances; leave out --instances"),
        (replace(told(), contract=replace(told().contract, beside={})), "fake knows no instances"),
        (told(reach=None), "fake sees None"),
        (told(reach=2), "fake sees 2 pixels far, too far for instances within a margin of 100"),
    ],
)
def test_where_no_instances_can_be_had_a_line_says_so(
    scene: Path, tmp_path: Path, model: FakeUpscaler, says: str
) -> None:
    with pytest.raises(GeomoeError, match=says):
        predict(scene, tmp_path / "map.tif", model=model, device="cpu", instances=tmp_path / "i.tif")
    assert {path.name for path in tmp_path.iterdir()} == {"town.tif"}


@pytest.fixture(scope="module")
def mfiae(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    torch.manual_seed(0)
    config = MfiaeConfig(classes=CLASSES, width=8, layers=1, heads=2, window=2, hidden=8, experts=2)
    model = Mfiae(config)
    with torch.no_grad():
        model.heads["centres"][-1].bias += 0.2
    path = tmp_path_factory.mktemp("mfiae") / "mfiae.safetensors"
    save(path, model, replace(card_of(model), model="mfiae", task="segmentation"))
    return load(str(path))


def test_a_network_and_its_polygons(mfiae: LoadedModel, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 20, 24), dtype=np.uint8).repeat(12, 1).repeat(12, 2)
    src = write_scene(tmp_path / "src.tif", blocks)
    assert mfiae.path is not None
    dry = ["predict", str(src), str(tmp_path / "d.tif"), "--model", str(mfiae.path), "--dry-run"]
    things = ["--instances", str(tmp_path / "i.tif"), "--vectors", str(tmp_path / "v.gpkg")]
    said = CliRunner().invoke(cli, [*dry, *things]).output
    assert f"vectors  {tmp_path / 'v.gpkg'}: polygons of all classes, parted by instances" in said
    for tile in ("32", "512"):
        ran = CliRunner().invoke(
            cli,
            [
                "predict", str(src), str(tmp_path / f"{tile}.tif"), "--model", str(mfiae.path),
                "--device", "cpu", "--tile", tile, "--instances", str(tmp_path / f"i{tile}.tif"),
                "--vectors", str(tmp_path / f"{tile}.gpkg"), "--class", "house",
            ],
        )  # fmt: skip
        assert ran.exit_code == 0, ran.output
    made, classes = read(tmp_path / "i32.tif"), read(tmp_path / "32.tif")
    np.testing.assert_array_equal(made, read(tmp_path / "i512.tif"))
    assert len(np.unique(made)) > 20
    meta, _, shapes, columns = pyogrio.raw.read(tmp_path / "32.gpkg")
    fields = dict(zip(meta["fields"], columns, strict=True))
    assert set(fields["instance"]) == set(made[classes == 1])
    for number in np.unique(made[classes == 1]):
        assert fields["pixels"][fields["instance"] == number].sum() == (made[classes == 1] == number).sum()
    assert len(shapes) >= len(np.unique(made)) - 1
