"""Plots of trees: which pixel is whose, what each sensor has, and which plots may be apart."""

from dataclasses import replace

import numpy as np
import pytest

from geomoe import GeomoeError
from geomoe.data.idtrees import idtrees_folder, read_plots
from geomoe.data.labelled import Reading, read_labelled
from geomoe.data.leakage import find_leaks, parts_of
from geomoe.data.split import Shares
from tests.data.made_plots import BANDS, NODATA, SIDE, crowns, plots, save


def plot(root, name="A_1", site="A", east=0, values=None, height=None):
    values = np.full((BANDS, SIDE, SIDE), 7, np.int16) if values is None else values
    height = np.full((1, SIDE, SIDE), 9, np.float32) if height is None else height
    save(root / "hsi" / f"{name}.tif", values, east, 5000, NODATA)
    save(root / "chm" / f"{name}.tif", height, east, 5000, -3.4e38)


def crown(species, left, top, right, bottom, plot="A_1", tree="1"):
    return [plot, plot[0], tree, species, left, top, right, bottom]


def test_a_folder_is_known_by_what_it_holds(tmp_path):
    assert idtrees_folder(tmp_path) is None
    assert idtrees_folder(plots(tmp_path, 1)) == tmp_path


def test_sensors_are_stacked_in_the_units_of_the_files(tmp_path):
    found, legend = read_plots(plots(tmp_path, 2), stems=1)
    assert [one.name for one in found] == ["NORTH/NORTH_0", "NORTH/NORTH_1", "SOUTH/SOUTH_0", "SOUTH/SOUTH_1"]
    assert {one.image.shape for one in found} == {(BANDS + 1, SIDE, SIDE)}
    assert found[0].sensors == {"hyperspectral": BANDS, "height": 1}
    assert found[0].site == "NORTH"
    assert found[0].image[:BANDS].max() > 500
    assert 5 < found[0].image[BANDS].max() < 30
    assert legend.names == ("Acer rubrum", "Acer saccharum", "Pinus taeda")


def test_a_pixel_is_a_crowns_whose_ellipse_holds_its_middle(tmp_path):
    plot(tmp_path)
    crowns(tmp_path, [crown("Acer rubrum L.", 20, 10, 60, 50), crown("Pinus taeda L.", 90, 90, 110, 120)])
    [one], _ = read_plots(tmp_path, stems=1)
    # By hand: middles are 0.5 and 1.5 m from the middle of a crown of 4 x 4 m, whose radius is 2 m.
    round_ = [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    assert one.labels[1:5, 2:6].tolist() == round_
    assert one.labels[9:12, 9:11].tolist() == [[2, 2]] * 3, "of 2 x 3 m the corners are near enough"
    assert np.count_nonzero(one.labels) == 12 + 6


@pytest.mark.parametrize("other", ["Pinus taeda L.", ""])
def test_where_crowns_of_unlike_classes_meet_nothing_is_known(tmp_path, other):
    plot(tmp_path)
    lines = [crown("Acer rubrum L.", 0, 0, 60, 60), crown(other, 40, 0, 100, 60),
             crown("Pinus taeda L.", 100, 100, 120, 120), crown("Acer rubrum L.", 0, 0, 50, 60)]  # fmt: skip
    for order in (lines, lines[::-1]):
        crowns(tmp_path, order)
        [one], _ = read_plots(tmp_path, stems=1)
        assert one.labels[2].tolist() == [1, 1, 1, 1, 0, 0, *[2 * bool(other)] * 4, 0, 0]


def test_rare_classes_are_of_no_class_and_a_genus_counts_all_its_species(tmp_path):
    plot(tmp_path)
    lines = [crown("Acer rubrum L.", 0, 0, 30, 30, tree="1"), crown("Acer rubrum L.", 0, 0, 30, 30, tree="1"),
             crown("Acer saccharum", 30, 0, 60, 30, tree="2"), crown("Pinus sp.", 60, 0, 90, 30, tree="3"),
             crown("Pinus sp.", 0, 60, 30, 90, tree="4"), crown("", 0, 30, 30, 60, tree="5")]  # fmt: skip
    crowns(tmp_path, lines)
    with pytest.raises(GeomoeError, match="has 1 classes of 2 trees or more"):
        read_plots(tmp_path, stems=2)
    [one], legend = read_plots(tmp_path, "genus", stems=2)
    assert legend.names == ("Acer", "Pinus")
    assert one.labels[1, [1, 4, 7]].tolist() == [1, 1, 2]
    assert one.labels[4, 1] == 0
    [one], legend = read_plots(tmp_path, "species", stems=1)
    assert legend.names == ("Acer rubrum", "Acer saccharum", "Pinus sp.")


def test_what_a_sensor_lacks_is_not_present_and_0(tmp_path):
    values, height = np.full((BANDS, SIDE, SIDE), 7, np.int16), np.full((1, SIDE, SIDE), 9, np.float32)
    values[3, 0, 0] = NODATA  # one band is enough
    height[0, 1, 1] = np.nan
    plot(tmp_path, values=values, height=height)
    crowns(tmp_path, [crown("Acer rubrum", 0, 0, 30, 30), crown("Pinus taeda", 30, 0, 60, 30)])
    [one], _ = read_plots(tmp_path, stems=1)
    assert np.argwhere(~one.present).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert (one.image[3, 0, 0], one.image[BANDS, 1, 1]) == (0, 0)


def test_plots_that_lie_together_are_of_one_part(tmp_path):
    """Of six in a row, five meters between the first two, and between the next two, at two sites."""
    easts = [0, SIDE + 5, 100, 100 + SIDE + 5, 200, 300]
    lines = []
    for site in "AB":
        for i, east in enumerate(easts):
            plot(tmp_path, f"{site}_{i}", site, east)  # both sites at the same place are two stands
            for j, species in enumerate(("Acer rubrum", "Pinus taeda")):
                lines.append(crown(species, 30 * j, 0, 30 * j + 30, 30, f"{site}_{i}", f"{i}{j}"))
    found = read_labelled(crowns(tmp_path, lines), Reading(stems=1))
    stands = [one.stand for one in found.images]
    assert len(set(stands)) == 8
    assert stands[0] == stands[1] != stands[2] == stands[3]
    assert not set(stands[:6]) & set(stands[6:])
    seen = set()
    for seed in range(8):
        parts = found.parts(Shares(), seed)
        assert all(parts[i] == parts[i + 1] for i in (0, 2, 6, 8))
        assert {*parts} == {"fit", "validation", "test"}
        seen.add(tuple(parts))
    assert len(seen) > 1
    left_out = found.parts(Shares(), 0, "B")
    assert [part == "test" for part in left_out] == [one.folder == "B" for one in found.images]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (crown("Acer rubrum", "a", 0, 30, 30), r"crowns\.csv, line 2: a box \['a', '0', '30', '30'\]"),
        (crown("Acer rubrum", 30, 0, 30, 30), "line 2: a box .* its most"),
        (crown("Acer rubrum", 0, 0, 30, 30, "A_2"), r"A_2\.tif"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(tmp_path, line, said):
    plot(tmp_path)
    lines = [line, crown("Pinus taeda", 0, 0, 30, 30), crown("Acer rubrum", 30, 0, 60, 30)]
    with pytest.raises(GeomoeError, match=said):
        read_plots(crowns(tmp_path, lines), stems=1)


def test_files_that_do_not_fit_are_refused(tmp_path):
    plot(tmp_path)
    lines = [crown("Pinus taeda", 0, 0, 30, 30), crown("Acer rubrum", 30, 0, 60, 30)]
    crowns(tmp_path, lines)
    with pytest.raises(GeomoeError, match=r"has 12 x 12 pixels, more than 100"):
        read_plots(tmp_path, stems=1, max_pixels=100)
    plot(tmp_path, height=np.zeros((1, SIDE, SIDE + 1), np.float32))
    with pytest.raises(GeomoeError, match="of unlike grids"):
        read_plots(tmp_path, stems=1)
    plot(tmp_path, height=np.zeros((2, SIDE, SIDE), np.float32))
    with pytest.raises(GeomoeError, match="has 2 bands; expected one"):
        read_plots(tmp_path, stems=1)
    (tmp_path / "crowns.csv").write_text("plot,site\n")
    with pytest.raises(GeomoeError, match="has no column individual"):
        read_plots(tmp_path, stems=1)


def test_leaks_are_looked_for_between_stands(tmp_path):
    found = read_labelled(plots(tmp_path, 6), Reading(stems=1))
    items = parts_of(tmp_path)
    assert [item.name for item in items] == [one.name for one in found.images]
    assert [item.part for item in items] == found.parts(Shares(), 0)
    assert "footprint" not in {leak.kind for leak in find_leaks(items).leaks}
    twice = next(item for item in items if item.part == "fit")
    leaks = find_leaks([*items, replace(twice, part="test")]).leaks
    assert {leak.kind for leak in leaks} == {"duplicate", "footprint"}


def test_photographs_have_the_crowns_in_pixels_of_their_own(tmp_path):
    plot(tmp_path)
    photograph = np.arange(3 * 120 * 120).reshape(3, 120, 120).astype(np.uint8)
    save(tmp_path / "rgb" / "A_1.tif", photograph, 0, 5000, None, side=0.1)
    crowns(tmp_path, [crown("Acer rubrum L.", 20, 10, 60, 50), crown("Pinus taeda L.", 90, 90, 110, 120)])
    found = read_labelled(tmp_path, Reading(stems=1, images="rgb"))
    [one] = found.images
    assert (found.radiometry, found.names, found.sensors) == ("unit", ("red", "green", "blue"), {})
    assert one.image.numpy().tobytes() == photograph.tobytes()
    assert found.dtypes == ("uint8",)
    # By hand: a circle of 20 pixels of radius around row 30, column 40.
    assert np.flatnonzero(one.mask[30] == 0).tolist() == list(range(20, 60))
    assert np.flatnonzero(one.mask[:, 40] == 0).tolist() == list(range(10, 50))
    assert np.count_nonzero(one.mask == 0) == pytest.approx(np.pi * 20**2, rel=0.01)


def test_a_photograph_has_three_bands_of_bytes(tmp_path):
    plot(tmp_path)
    crowns(tmp_path, [crown("Acer rubrum L.", 20, 10, 60, 50), crown("Pinus taeda L.", 90, 90, 110, 120)])
    save(tmp_path / "rgb" / "A_1.tif", np.full((3, 120, 120), 256, np.uint16), 0, 5000, None, side=0.1)
    with pytest.raises(GeomoeError, match=r"A_1\.tif is no image of red, green and blue of eight bits"):
        read_plots(tmp_path, stems=1, photographs=True)
