"""Patches of radar and optical images: what they hold, how apart their parts are, and what is refused."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data import radar_optical
from geomoe.data.class_folders import labelled_files
from geomoe.data.datasets import find_data_set
from geomoe.data.images import read_picture
from geomoe.data.radar_optical import PATCH_SENSORS, SIDE, make_radar_optical
from geomoe.tasks.classification_data import ClassificationData
from tests.data.test_dates import write_pair

SIZE = (260, 330)


def pair(folder, changed=None):
    """Bands whose values say the row and the column of a pixel; every second stripe of rows changes."""
    write_pair(folder, "a", size=SIZE)
    rows, columns = np.indices(SIZE)
    image = np.stack([rows % 250 + 1, columns % 250 + 1, 100 * (rows // 250), 100 * (columns // 250)])
    Image.fromarray(image[0].astype(np.uint8)).save(folder / "a_1.png")
    Image.fromarray(image[1:].transpose(1, 2, 0).astype(np.uint8)).save(folder / "a_2.png")
    truth = (rows // 5 % 2).astype(np.uint8) * 255 if changed is None else np.full(SIZE, changed, np.uint8)
    Image.fromarray(truth).save(folder / "a_gt.png")
    return folder / "a_gt.png"


def corner(path):
    """Row and column of a patch in the image."""
    with rasterio.open(path) as file:
        first = file.read()[:, 0, 0].astype(int)
    rows, columns = first[0] - 1 + 250 * (first[2] >= 100), first[1] - 1 + 250 * (first[3] >= 100)
    return int(rows), int(columns)


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(radar_optical, "_COUNTS", {"fit": 40, "validation": 10, "test": 20})
    make_radar_optical(tmp_path / "made", pair(tmp_path / "pair"))
    return tmp_path / "made"


def test_a_patch_is_of_the_class_of_its_middle_and_parts_share_no_pixel(made):
    shown = {}
    for part in ("fit", "validation", "test"):
        covered = np.zeros(SIZE, bool)
        files = labelled_files(made, part)
        assert len(files) == {"fit": 80, "validation": 20, "test": 40}[part]
        for one in files:
            row, column = corner(one.path)
            assert one.label == ("unchanged", "changed")[(row + SIDE // 2) // 5 % 2]
            covered[row : row + SIDE, column : column + SIDE] = True
        shown[part] = covered
    assert not (shown["fit"] & shown["test"]).any()
    assert not (shown["fit"] & shown["validation"]).any()
    assert not (shown["validation"] & shown["test"]).any()
    assert len(labelled_files(made, "train")) == 100


def test_patches_are_read_as_images_of_two_sensors_by_one_scale(made):
    assert find_data_set(made).name == "radar_optical"
    assert ClassificationData(str(made), size=SIDE, bands=4).sensors == PATCH_SENSORS
    one = labelled_files(made, "test")[0].path
    picture = read_picture(one, 4)
    with rasterio.open(one) as file:
        assert np.allclose(picture.data.numpy() * 255, file.read(), atol=1e-3)
    assert picture.valid is None


def test_what_is_no_pair_of_radar_and_optical_is_refused(tmp_path, capsys):
    truth = pair(tmp_path / "pair", changed=0)
    with pytest.raises(GeomoeError, match="fit holds of the pair changed, or all"):
        make_radar_optical(tmp_path / "made", truth)
    with pytest.raises(GeomoeError, match="no truth of a pair"):
        make_radar_optical(tmp_path / "made", truth.with_name("a_1.png"))
    write_pair(tmp_path / "colours", "b", bands=(3, 3))
    with pytest.raises(GeomoeError, match=r"b_1\.png has 3 bands where 1 are wanted"):
        make_radar_optical(tmp_path / "made", tmp_path / "colours" / "b_gt.png")
    with pytest.raises(SystemExit):
        main(["data", str(tmp_path / "made"), "--make", "radar_optical"])
    assert "by --of PATH" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"pair", "colours"}
