"""Pairs of two dates: what is read, repeated, refused and held out."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from geomoe import GeomoeError
from geomoe.data.dates import CHANGE, dated_files, read_dates
from geomoe.data.labelled import Reading, read_labelled
from geomoe.data.places import NOBODY, columns
from geomoe.data.split import PARTS, Shares
from geomoe.tasks.segmentation_data import SegmentationData


def write_pair(folder, name, bands=(1, 3), size=(40, 60), seed=0, end="png"):
    """Noise at two dates; a square changes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    truth = np.zeros(size, np.uint8)
    truth[10:20, 5:-5] = 255
    for date, number in enumerate(bands, 1):
        values = rng.integers(0, 256, (*size, number), np.uint8)
        Image.fromarray(values.squeeze()).save(folder / f"{name}_{date}.{end}")
    Image.fromarray(truth).save(folder / f"{name}_gt.{end}")
    return truth


def test_bands_of_both_dates_are_stacked_in_units_of_the_files(tmp_path):
    truth = write_pair(tmp_path, "a")
    found = read_labelled(tmp_path, Reading())
    (one,) = found.images
    assert dict(found.sensors) == {"before": 1, "after": 3}
    assert found.legend == CHANGE
    before, after = (np.asarray(Image.open(tmp_path / f"a_{n}.png")) for n in (1, 2))
    assert np.array_equal(one.image[0], before)
    assert np.array_equal(one.image[1:].numpy().transpose(1, 2, 0), after)
    assert np.array_equal(one.mask, truth // 255)
    assert (found.name, found.radiometry, one.name) == (tmp_path.name, "values", "a")


def test_greys_stored_as_colours_are_one_band(tmp_path):
    write_pair(tmp_path, "a", bands=(1, 1))
    for path in sorted(tmp_path.glob("*.png")):
        Image.open(path).convert("RGB").save(path)
    (pair,) = read_dates(dated_files(tmp_path))
    assert pair.bands == (1, 1)
    assert 0 < pair.changed.mean() < 1


def test_one_band_is_repeated_to_those_of_other_pairs_or_to_what_is_asked(tmp_path):
    write_pair(tmp_path, "a", bands=(1, 1))
    write_pair(tmp_path, "b", bands=(1, 3))
    a, b = read_dates(dated_files(tmp_path))
    assert a.bands == b.bands == (1, 3)
    assert np.array_equal(a.data[1], a.data[3])
    assert not np.array_equal(b.data[1], b.data[3])
    assert len(read_dates(dated_files(tmp_path), {"x": 3, "y": 3})[0].data) == 6
    with pytest.raises(GeomoeError, match=r"b_2\.png has 3 bands where 2 are wanted"):
        read_dates(dated_files(tmp_path), {"x": 1, "y": 2})
    with pytest.raises(GeomoeError, match="of two dates, such as"):
        read_dates(dated_files(tmp_path), {"x": 1, "y": 2, "z": 1})


def test_a_truth_of_ones_says_what_one_of_255_says(tmp_path):
    truth = write_pair(tmp_path, "a")
    Image.fromarray(truth // 255).save(tmp_path / "a_gt.png")
    assert np.array_equal(read_dates(dated_files(tmp_path))[0].changed, truth // 255)
    Image.fromarray(np.zeros_like(truth)).save(tmp_path / "a_gt.png")
    assert not read_dates(dated_files(tmp_path))[0].changed.any()


def write_raster(path, data, west=0.0, nodata=None):
    with rasterio.open(
        path, "w", driver="GTiff", dtype=data.dtype, count=len(data), height=data.shape[1], nodata=nodata,
        width=data.shape[2], crs="EPSG:32618", transform=from_origin(west, 0, 10, 10),
    ) as file:  # fmt: skip
        file.write(data)


def test_rasters_keep_their_units_and_what_one_date_lacks_has_no_class(tmp_path):
    write_pair(tmp_path, "a")
    data = np.arange(1, 1 + 2 * 40 * 60, dtype=np.uint16).reshape(2, 40, 60)
    gap = data.copy()
    gap[:, :, :7] = 0
    for date, values in ((1, data), (2, gap)):
        (tmp_path / f"a_{date}.png").unlink()
        write_raster(tmp_path / f"a_{date}.tif", values, nodata=0)
    (one,) = read_labelled(tmp_path, Reading()).images
    assert np.array_equal(one.image[:2], data)
    assert np.array_equal(one.valid, np.arange(60) >= 7) or (one.valid == (np.arange(60) >= 7)).all()
    assert one.present.sum((1, 2)).tolist() == [2400, 40 * 53]
    write_raster(tmp_path / "a_2.tif", gap, west=5.0)
    with pytest.raises(GeomoeError, match=r"a_2\.tif and .*a_1\.tif are of unlike grids"):
        read_labelled(tmp_path, Reading())


@pytest.mark.parametrize("wrong", ["2", "gt"])
def test_sizes_that_differ_are_named(tmp_path, wrong):
    write_pair(tmp_path, "a")
    Image.fromarray(np.zeros((30, 60), np.uint8)).save(tmp_path / f"a_{wrong}.png")
    with pytest.raises(GeomoeError, match=rf"a_{wrong}\.png has 60 x 30 pixels, a_1\.png 60 x 40"):
        read_labelled(tmp_path, Reading())


def test_a_pair_is_three_images(tmp_path):
    write_pair(tmp_path, "a")
    (tmp_path / "a_2.png").rename(tmp_path / "b_2.png")
    with pytest.raises(GeomoeError, match="a has no a_2; a pair is three images"):
        dated_files(tmp_path)
    (tmp_path / "b_2.png").rename(tmp_path / "a_1.jpg")
    with pytest.raises(GeomoeError, match="are both a_1; keep one"):
        dated_files(tmp_path)
    (tmp_path / "a_gt.png").unlink()
    (tmp_path / "a_1.jpg").unlink()
    assert dated_files(tmp_path) == []


def test_columns_from_left_to_right_with_gaps():
    places = columns((5, 100), Shares(0.1, 0.4), 6)
    expected = np.r_[np.repeat(0, 44), np.repeat(NOBODY, 6), np.repeat(1, 4), np.repeat(NOBODY, 6),
                     np.repeat(2, 40)]  # fmt: skip
    assert (places.parts == expected).all()
    assert not (places.seen("fit") & places.of("test")).any()
    with pytest.raises(GeomoeError, match="nothing is left for validation of 100 columns"):
        columns((5, 100), Shares(0.1, 0.4), 10)


def data_of(folder, **options):
    return SegmentationData(str(folder), **options)


def parts_of(data):
    return {
        one.name: {PARTS[p] for p in np.unique(one.places.parts).tolist() if p != NOBODY}
        for one in data._held
    }


def test_a_pair_is_left_out_and_another_one_validated_on(tmp_path):
    for i, name in enumerate("abcd"):
        write_pair(tmp_path, name, seed=i)
    parts = parts_of(data_of(tmp_path, split="folder", left_out="c"))
    assert parts["c"] == {"test"}
    assert sorted(map(sorted, (parts[name] for name in "abd"))) == [["fit"], ["fit"], ["validation"]]
    with pytest.raises(GeomoeError, match="no folder 'e' can be left out; there are: a, b, c, d"):
        parts_of(data_of(tmp_path, split="folder", left_out="e"))


def test_columns_of_every_pair_hold_all_parts(tmp_path):
    for name in "ab":
        write_pair(tmp_path, name)
    data = data_of(tmp_path, split="columns", buffer=4, validation=0.2, test=0.4)
    assert parts_of(data) == {"a": set(PARTS), "b": set(PARTS)}
    assert data.sensors == {"before": 1, "after": 3}
    assert data.classes == ("unchanged", "changed")
    assert data.counts["changed"] == 2 * 10 * (60 - 24 - 12 - 4 - 5)


def test_the_pairs_of_the_literature_are_known_by_their_names(tmp_path):
    for name in ("italy", "ottawa", "shuguang", "yellow_a", "yellow_b", "yellow_c", "yellow_d"):
        write_pair(tmp_path, name, (1, 3) if name in ("italy", "shuguang") else (1, 1), (40, 120))
    data = data_of(tmp_path, split="columns", buffer=4, validation=0.15, test=0.4)
    assert data.describe()["layout"] == "change"
    assert data.sensors == {"before": 1, "after": 3}
    assert len(data._held) == 7
