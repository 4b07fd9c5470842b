"""Places and tiles of two sensors, from files like those that are published to images with masks."""

import json
from math import isnan

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.labelled import Reading, read_labelled
from geomoe.data.land_cover import BANDS, STEP, make_land_cover
from geomoe.data.split import Shares

WATER, CROPS = 1, 4


def write(path, values, x=0, side=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype.name, count=len(values), height=values.shape[1],
        width=values.shape[2], crs="EPSG:32618", transform=from_origin(x, 1000, side, side),
    ) as file:  # fmt: skip
        file.write(values)


def landsat(reflectance):
    return np.rint((np.asarray(reflectance) + 0.2) / 2.75e-5).astype(np.uint16)


def source(root, places=("282D_485L_3_3", "433D_629L_3_1"), tiles=None):
    """Places of 8 x 8 pixels, whose bands are known by their values, and tiles of 4 x 4."""
    for name in places:
        bands = 1000 * np.arange(1, 13).repeat(64).reshape(12, 8, 8) // 4
        write(root / "five_places" / "S2L2A" / f"{name}.tif", bands.astype(np.int16))
        cover = np.full((1, 8, 8), WATER, np.uint8)
        cover[0, :4, 4:] = CROPS
        write(root / "five_places" / "LULC" / f"{name}.tif", cover)
    for name, (labels, image) in (tiles or {"sea": (["Sea and ocean"], tile())}).items():
        write(root / "landsat_tiles" / "images" / f"{name}.tif", image)
        path = root / "landsat_tiles" / "labels" / f"{name}_labels_metadata.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"labels": labels}))
    return root


def tile(bright=0):
    """Reflectances .01 to .07 of the bands; ``bright`` pixels of .5."""
    image = np.arange(1, 8).repeat(16).reshape(7, 16) * 0.01
    image[:, :bright] = 0.5
    return landsat(image.reshape(7, 4, 4))


def reflectance(path):
    with rasterio.open(path) as file:
        assert file.descriptions == BANDS
        return (file.read().astype(float) - 1) * STEP, file.transform


def test_quarters_lie_where_they_are_and_have_the_reflectance_of_the_bands(tmp_path):
    make_land_cover(tmp_path / "made", source(tmp_path / "of"))
    folder = tmp_path / "made" / "images" / "sentinel-2"
    image, at = reflectance(folder / "282D_485L_3_3" / "se.tif")
    assert image.shape == (7, 4, 4)
    # By hand: bands 1, 2, 3, 4, 8A, 11 and 12 are the 1st, 2nd, 3rd, 4th, 9th, 11th and 12th of the file.
    assert image[:, 0, 0] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.225, 0.275, 0.3], abs=0.0011)
    assert (at.c, at.f) == (40, 960)
    shifted, _ = reflectance(folder / "433D_629L_3_1" / "se.tif")
    assert shifted[3:, 0, 0] == pytest.approx(image[3:, 0, 0] - 0.1, abs=1e-9)


def test_both_sensors_are_read_as_images_with_masks_of_one_legend(tmp_path):
    tiles = {
        "sea": (["Sea and ocean", "Coastal lagoons"], tile(bright=2)),
        "coast": (["Sea and ocean", "Pastures"], tile()),
        "orchard": (["Fruit trees and berry plantations"], tile()),
        "ice": (["Sea and ocean"], tile(bright=9)),
        "nothing": (["Sea and ocean"], np.zeros((7, 4, 4), np.uint16)),
    }
    said = make_land_cover(tmp_path / "made", source(tmp_path / "of", tiles=tiles))
    assert said.startswith("8 quarters of places; tiles: 1 of water; left out")
    assert said.endswith(": 4")
    found = read_labelled(tmp_path / "made", Reading())
    assert (found.known.name, found.radiometry) == ("land_cover", "unit")
    assert found.names == ("red", "green", "blue")
    by_name = {one.name: one for one in found.images}
    sea = by_name["landsat-8/sea.tif"]
    assert sea.mask.flatten().tolist() == [-1] * 2 + [0] * 14, "what is bright in blue has no class"
    assert sea.image[:, 3, 3].tolist() == pytest.approx([(1 + 20) / 255, (1 + 15) / 255, (1 + 10) / 255])
    ne = by_name["sentinel-2/282D_485L_3_3/ne.tif"]
    assert ne.mask.unique().tolist() == [CROPS - 1]
    parts = dict(zip(by_name, found.parts(Shares(0.25, 0.3), 0, ["landsat-8"]), strict=True))
    assert {name for name, part in parts.items() if part == "test"} == {"landsat-8/sea.tif"}


def test_a_place_is_left_out_where_the_other_sensor_is_not_read(tmp_path):
    make_land_cover(tmp_path / "made", source(tmp_path / "of"))
    how = Reading(images="images/sentinel-2", masks="masks/sentinel-2")
    found = read_labelled(tmp_path / "made", how)
    assert {one.folder for one in found.images} == {"282D_485L_3_3", "433D_629L_3_1"}
    assert found.legend.names[0] == "water"
    parts = found.parts(Shares(0.25, 0.3), 0, ["433D_629L_3_1"])
    assert [parts.count(part) for part in ("fit", "validation", "test")] == [3, 1, 4]


def test_no_measurement_is_0_and_of_no_class(tmp_path):
    root = source(tmp_path / "of", places=("282D_485L_3_3",))
    path = root / "five_places" / "S2L2A" / "282D_485L_3_3.tif"
    with rasterio.open(path, "r+") as file:
        bands = file.read()
        bands[3, 0, 0] = 0
        file.write(bands)
    make_land_cover(tmp_path / "made", root)
    found = read_labelled(tmp_path / "made", Reading())
    [nw] = [one for one in found.images if one.name.endswith("nw.tif")]
    assert not nw.valid[0, 0]
    assert nw.valid.sum() == 15
    assert nw.mask[0, 0] == -1
    assert not isnan(float(nw.image[:, 0, 0].sum()))


def test_what_cannot_be_used_is_said_and_nothing_is_left(tmp_path, capsys):
    root = source(tmp_path / "of")
    labels = root / "landsat_tiles" / "labels" / "sea_labels_metadata.json"
    labels.write_text("[]")
    with pytest.raises(GeomoeError, match=r"sea_labels_metadata\.json cannot be read"):
        make_land_cover(tmp_path / "made", root)
    labels.unlink()
    (root / "landsat_tiles" / "images" / "sea.tif").unlink()
    with pytest.raises(SystemExit, match="1"):
        main(["data", str(tmp_path / "made"), "--make", "land_cover", "--of", str(root)])
    assert "has no landsat_tiles/images/*.tif; give the folder of all data" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
