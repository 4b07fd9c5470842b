"""Made burns: what changes, by how much, and where nothing does."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.burns import BANDS, KINDS, Fires, burn, make_burns, ndvi
from geomoe.data.labelled import Reading, read_labelled

SMALL = Fires(fires=4, radius=(8, 16), fields=2, side=(10, 20), shadows=2, shade=(6, 12))
FOREST, SOIL = (0.05, 0.06, 0.04, 0.30), (0.2, 0.15, 0.1, 0.22)  # red, green, blue, near infrared


def scene(side=96):
    """Forest on the left three quarters, soil on the right."""
    image = np.empty((4, side, side), np.float32)
    for band, (forest, soil) in enumerate(zip(FOREST, SOIL, strict=True)):
        image[band] = np.where(np.arange(side) < 3 * side // 4, forest, soil)
    return image


def made(seed=0):
    return burn(scene(), np.random.default_rng(seed), SMALL)


def test_the_seed_alone_decides():
    assert all(np.array_equal(a, b) for a, b in zip(made(), made(), strict=True))
    assert not np.array_equal(made()[1], made(1)[1])


def test_fire_and_harvest_are_where_vegetation_is():
    _, kinds = made()
    assert set(np.unique(kinds)) == set(range(len(KINDS)))
    for kind in ("burned", "harvested"):
        assert (ndvi(scene())[kinds == KINDS.index(kind)] > 0.35).all()


def slopes(after, kinds, kind):
    """What each band was made of what it was, against that of pixels that did not change, ``[4]``."""
    before = scene()
    still = [np.polyfit(before[b][kinds == 0], after[b][kinds == 0], 1) for b in range(4)]
    where = kinds == KINDS.index(kind)
    undone = [(after[b][where] - still[b][1]) / still[b][0] for b in range(4)]
    return np.array([value.mean() for value in undone]) / before[:, where].mean(1)


def test_bands_change_as_those_of_a_fire_and_of_a_harvest():
    found = [slopes(*made(seed), "burned") for seed in range(3)]
    severity = np.array([(1 - f[3]) / 0.667 for f in found])  # nir: 1 - .6 s, and char of .1 s
    assert ((severity > 0.3) & (severity < 1)).all()
    red, green, blue, nir = np.mean(found, 0)
    assert 1.02 < red < 1.25
    assert 0.75 < green < 0.98
    assert 0.75 < blue < 1
    assert 0.35 < nir < 0.85
    red, green, blue, nir = np.mean([slopes(*made(seed), "harvested") for seed in range(3)], 0)
    assert nir == pytest.approx(1, abs=0.05)
    wanted = ndvi(scene())[0, 0] - 0.3
    assert FOREST[3] * nir - FOREST[0] * red == pytest.approx(
        wanted * (FOREST[3] * nir + FOREST[0] * red), abs=0.02
    )
    assert np.mean([slopes(*made(seed), "in shadow") for seed in range(3)]) == pytest.approx(0.6, abs=0.08)


def write(path, bands=BANDS, side=96):
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=len(bands), height=side, width=side, nodata=0,
        crs="EPSG:32618", transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        image = scene(side)[[BANDS.index(band) for band in bands]] * 1e4
        image[:, 0, 0] = 0
        file.write(image.astype("uint16"))
        file.descriptions = bands
    return path


def test_a_pair_is_written_as_data_that_train(tmp_path):
    make_burns(tmp_path / "burns", write(tmp_path / "s.tif", BANDS[::-1]), seed=3, how=SMALL)
    found = read_labelled(tmp_path / "burns", Reading())
    (one,) = found.images
    assert found.known.name == "burns"
    assert dict(found.sensors) == {"before": 4, "after": 4}
    assert one.image[0, 1, 1] == pytest.approx(1e4 * FOREST[0])
    assert not one.valid[0, 0]
    kinds = np.asarray(Image.open(tmp_path / "burns" / "burns_kinds.png"))
    assert np.array_equal(one.mask == 1, kinds == 1)


def test_what_cannot_be_made_of_is_named(tmp_path, capsys):
    source = write(tmp_path / "s.tif", BANDS[:3])
    with pytest.raises(GeomoeError, match="no band 'nir'"):
        make_burns(tmp_path / "burns", source, how=SMALL)
    with pytest.raises(GeomoeError, match="nothing to burn"):
        burn(np.full((4, 8, 8), 0.1, np.float32), np.random.default_rng(0), SMALL)
    for options, said in (
        (["--make", "burns"], "give what it is made of, by --of PATH"),
        (["--make", "radar_targets", "--of", str(source)], "is made of nothing that is given"),
        (["--of", str(source)], "--of goes with --make"),
    ):
        with pytest.raises(SystemExit, match="1"):
            main(["data", str(tmp_path / "burns"), *options])
        assert said in capsys.readouterr().err
    assert not (tmp_path / "burns").exists()
