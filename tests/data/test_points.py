"""Points that are drawn from masks."""

import numpy as np
import pytest
from PIL import Image

from geomoe import GeomoeError
from geomoe.data.legend import IGNORED
from geomoe.data.points import points_of
from geomoe.tasks.segmentation_data import SegmentationData

MASK = np.array(
    [
        [0, 0, 0, 1, 1],
        [0, 0, 1, 0, 1],  # the 0 in it touches the others by no side
        [-1, 0, 1, 1, 1],
        [2, 2, -1, 1, 0],
    ],
    np.int16,
)


def points(least, seed=0):
    return points_of(MASK, least, np.random.default_rng(seed))


def test_each_component_that_is_large_enough_has_one_pixel_of_its_class():
    found = points(2)
    assert found.dtype == MASK.dtype
    assert sorted(found[found != IGNORED].tolist()) == [0, 1, 2]
    assert (MASK[found != IGNORED] == found[found != IGNORED]).all()
    assert found[1, 3] == found[3, 4] == IGNORED
    assert sorted(points(1)[points(1) != IGNORED].tolist()) == [0, 0, 0, 1, 2]
    assert sorted(points(7)[points(7) != IGNORED].tolist()) == [1]
    assert (points(9) == IGNORED).all()


def test_any_pixel_may_be_the_point_and_the_seed_decides():
    assert np.array_equal(points(2, 3), points(2, 3))
    seen = np.mean([points(2, seed) == 2 for seed in range(400)], 0)
    assert seen[3, :2] == pytest.approx(0.5, abs=0.1)


@pytest.fixture
def folder(tmp_path):
    """Six towns of three blocks of houses."""
    rng = np.random.default_rng(0)
    for town in ("a", "b"):
        (tmp_path / town).mkdir()
        for number in range(3):
            mask = np.ones((24, 24), np.uint8)
            mask[2:8, 2:8] = mask[12:20, 3:9] = mask[2:9, 14:22] = 2
            mask[22, 22] = 2
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(
                tmp_path / town / f"{number}.png"
            )
            Image.fromarray(mask).save(tmp_path / town / f"{number}_mask.png")
    return tmp_path


def data(folder, **options):
    made = {"split": "folder", "left_out": "b", "validation": 0.34, "patch": 16, "batch_size": 2}
    return SegmentationData(str(folder), **{**made, **options})


def test_what_is_trained_on_has_points_and_what_is_scored_has_masks(folder):
    whole, pointed = data(folder), data(folder, points=20)
    assert sum(pointed.counts.values()) == 2 * 4  # three houses and the ground of each of two images
    for part in ("validation", "test"):
        for (_, ours), (_, theirs) in zip(
            pointed.samples(part).samples, whole.samples(part).samples, strict=True
        ):
            assert (ours["mask"] == theirs["mask"]).all()
    assert pointed.statistics == whole.statistics, "of all pixels, whose values are known"
    assert pointed.recipe["points"] == 20
    batch = next(iter(pointed.train_dataloader()))
    assert 1 <= (batch["mask"] != IGNORED).sum() <= 2 * 4


def test_trainings_of_other_seeds_see_the_same_points(folder):
    def where(**options):
        named = data(folder, points=20, **options).samples("fit")
        return [(sample["mask"] != IGNORED).nonzero().tolist() for _, sample in named.samples]

    assert where(seed=0) == where(seed=5)


def test_a_number_of_pixels_below_none_is_refused(folder):
    with pytest.raises(GeomoeError, match=r"data.points"):
        data(folder, points=-1)
