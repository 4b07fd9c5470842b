"""Images of several sensors that lie in folders side by side, with masks."""

import numpy as np
import pytest
import rasterio
import torch

from geomoe import GeomoeError
from geomoe.data.legend import IGNORED
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData

FOLDERS = ["optical", "radar"]


def save(path, data, nodata=None, east=500000):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.atleast_3d(data.T).T
    with rasterio.open(
        path, "w", driver="GTiff", height=data.shape[1], width=data.shape[2], count=len(data), nodata=nodata,
        dtype=data.dtype, crs="EPSG:32618", transform=rasterio.Affine(10, 0, east, 0, -10, 4500000),
    ) as file:  # fmt: skip
        file.write(data)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        save(tmp_path / "optical" / f"{name}.tif", rng.integers(1, 9999, (3, 8, 6), np.int16))
        radar = rng.normal(-15, 4, (2, 8, 6))
        radar[:, :2] = -99 if name == "a" else radar[:, :2]
        save(tmp_path / "radar" / f"{name}.tif", radar, -99)
        save(tmp_path / "masks" / f"{name}.tif", rng.integers(0, 3, (8, 6), np.uint8))
    return tmp_path


def data(root, **options):
    return SegmentationData(str(root), **{"split": "pixels", "images": FOLDERS, **options})


def test_bands_of_folders_are_stacked_in_the_units_of_their_files(root):
    found = data(root)
    assert (found.sensors, found.bands) == ({"optical": 3, "radar": 2}, 5)
    assert (found.radiometry, found.classes) == ("values", ("class 1", "class 2"))
    one = found._held[0]
    with (
        rasterio.open(root / "optical" / "a.tif") as optical,
        rasterio.open(root / "radar" / "a.tif") as radar,
    ):
        assert np.array_equal(one.image[:3], optical.read().astype(np.float32))
        assert np.array_equal(one.image[3:, 2:], radar.read().astype(np.float32)[:, 2:])
    assert one.present.sum((1, 2)).tolist() == [48, 36]
    assert one.valid.all()
    assert -20 < found.mean[4] < -10
    assert found.recipe["images"] == FOLDERS
    assert data(root, sensors={"s2": 3, "s1": 2}).sensors == {"s2": 3, "s1": 2}


def test_a_pixel_that_every_sensor_lacks_has_no_class(root):
    found = data(root).samples("fit")
    [(_, sample)] = [one for one in found.without(["radar"], (0.0,)).samples if one[0] == "a.tif"]
    batch = {name: value[None] for name, value in sample.items()}
    batch["present"][:, 0, :3] = False
    task = Segmentation("unet", bands=5, classes=("x", "y"), options={"width": 4, "depth": 1})
    truth = task.truth(batch)
    assert (truth[0, :3] == IGNORED).all()
    assert torch.equal(truth[0, 3:], batch["mask"][0, 3:])


def test_what_does_not_fit_is_said(root):
    for folders in (["optical", "optical"], ["optical"]):
        with pytest.raises(GeomoeError, match="two folders or more, each once"):
            data(root, images=folders).bands  # noqa: B018
    with pytest.raises(GeomoeError, match="only names may differ"):
        data(root, sensors={"a": 2, "b": 3}).bands  # noqa: B018
    save(root / "radar" / "b.tif", np.zeros((2, 8, 6)), east=500000.001)  # a rounding
    assert data(root).bands == 5
    save(root / "radar" / "b.tif", np.zeros((2, 8, 6)), east=500000.1)
    with pytest.raises(GeomoeError, match="are of unlike grids"):
        data(root).bands  # noqa: B018
    save(root / "radar" / "b.tif", np.zeros((3, 8, 6)))
    with pytest.raises(GeomoeError, match="unlike numbers of bands"):
        data(root).bands  # noqa: B018
    (root / "radar" / "b.tif").unlink()
    with pytest.raises(GeomoeError, match="without image"):
        data(root).bands  # noqa: B018
