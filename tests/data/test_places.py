"""Splits show nothing of one part to another."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geomoe import GeomoeError
from geomoe.data.crops import CropStream, LabelledImage, WholeImages, band_statistics, class_counts, shown
from geomoe.data.legend import IGNORED
from geomoe.data.places import (
    NOBODY,
    random_pixels,
    spatial_blocks,
    whole_image,
)
from geomoe.data.split import PARTS, Shares, items_by_folder


def fields(height=60, width=50, classes=4, seed=0):
    """Rectangles of one class each, with strips between them that have none."""
    rng = np.random.default_rng(seed)
    labels = np.full((height, width), -1)
    for y in range(0, height, 10):
        for x in range(0, width, 10):
            labels[y : y + 9, x : x + 9] = rng.integers(classes)
    return labels


def split(kind, labels, seed=0, **options):
    return {"pixels": random_pixels, "blocks": spatial_blocks}[kind](
        labels, Shares(0.1, 0.3), seed, **options
    )


@pytest.mark.parametrize("kind", ["pixels", "blocks"])
def test_the_seed_alone_decides(kind):
    labels = fields()
    first = split(kind, labels).parts
    assert np.array_equal(first, split(kind, labels).parts)
    assert not np.array_equal(first, split(kind, labels, seed=1).parts)


def test_random_pixels_are_shares_of_each_class():
    labels = fields()
    places = split("pixels", labels)
    assert (places.parts[labels < 0] == NOBODY).all()
    for label in range(4):
        of = labels == label
        for part, share in zip(PARTS, (0.6, 0.1, 0.3), strict=True):
            assert abs(places.of(part)[of].mean() - share) < 0.02


def test_a_class_of_three_pixels_is_in_all_parts():
    labels = fields()
    labels[:3, 0] = 4
    places = split("pixels", labels)
    assert [places.of(part)[labels == 4].sum() for part in PARTS] == [1, 1, 1]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(3, 20), st.integers(0, 5), st.integers(0, 99))
def test_no_pixel_of_a_part_is_in_the_patch_of_a_pixel_of_another(side, buffer, seed):
    labels = fields(seed=seed)
    try:
        places = split("blocks", labels, seed, side=side, buffer=buffer)
    except GeomoeError:
        return  # nothing is left of a part
    height, width = labels.shape
    for part in PARTS:
        others = (places.parts != NOBODY) & ~places.of(part)
        for y, x in np.argwhere(places.of(part))[:: max(side, 1)]:
            rows = slice(max(y - buffer, 0), min(y + buffer + 1, height))
            assert not others[rows, max(x - buffer, 0) : min(x + buffer + 1, width)].any()


def test_the_test_keeps_its_blocks_whole():
    labels = np.zeros((40, 40), int)
    places = split("blocks", labels, side=10, buffer=3)
    test = places.of("test").reshape(4, 10, 4, 10).sum((1, 3))
    assert set(test.flatten()) == {0, 100}
    assert (test > 0).sum() == 5  # of 16


@pytest.mark.parametrize(("blocks", "parts"), [(3, [1, 1, 1]), (2, [1, 0, 1]), (1, [1, 0, 0])])
def test_blocks_share_out_the_classes(blocks, parts):
    """A class that lies in three blocks is in every part; one that lies in fewer can be learned at least."""
    labels = np.zeros((80, 80), int)
    for y, x in ((0, 0), (40, 40), (70, 10))[:blocks]:
        labels[y : y + 10, x : x + 10] = 1
    places = split("blocks", labels, side=10, buffer=0)
    assert [places.of(part)[labels == 1].sum() / 100 for part in PARTS] == parts


@pytest.mark.parametrize("seed", range(8))
def test_classes_are_shared_out_by_what_keeping_apart_leaves(seed):
    """A class along the edge of two blocks: were they of two parts, nothing of it would be left to learn."""
    labels = np.zeros((80, 80), int)
    labels[:10, 8:12] = 1
    places = split("blocks", labels, seed, side=10, buffer=3)
    assert places.of("fit")[labels == 1].sum() > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"side": 0}, "side=0"),
        ({"buffer": -1}, "buffer=-1"),
        ({"side": 50}, "2 blocks of 50 pixels"),
        ({"side": 3, "buffer": 12}, "nothing is left for fit"),
    ],
)
def test_blocks_that_cannot_be_are_refused(options, said):
    with pytest.raises(GeomoeError, match=said):
        split("blocks", fields(), **options)


@pytest.mark.parametrize("shares", [(0, 0.3), (0.5, 0.5), (0.1, float("nan")), (-0.1, 0.3)])
def test_shares_leave_something_to_each_part(shares):
    with pytest.raises(GeomoeError, match="expected"):
        Shares(*shares)


@pytest.mark.parametrize("shares", [(0.1, 0.5), (0.2, 0.6), (0.4, 0.5), (0.01, 0.01), (0.05, 0.9)])
def test_three_things_are_enough_for_all_parts(shares):
    for number in range(1, 8):
        labels = np.zeros((1, number), np.int64)
        places = random_pixels(labels, Shares(*shares), seed=0)
        counts = [int(places.of(part).sum()) for part in PARTS]
        assert sum(counts) == number
        assert counts[0] >= 1
        assert min(counts) >= (number >= 3)


def test_a_folder_is_left_out_whole():
    folders = ["a"] * 10 + ["b"] * 4 + ["c"] * 20
    parts = items_by_folder(folders, Shares(0.2, 0.5), 0, left_out="b")
    assert [part == "test" for part in parts] == [folder == "b" for folder in folders]
    held = [folder for folder, part in zip(folders, parts, strict=True) if part == "validation"]
    assert (held.count("a"), held.count("c")) == (2, 4)
    assert parts == items_by_folder(folders, Shares(0.2, 0.5), 0, left_out="b")
    assert parts != items_by_folder(folders, Shares(0.2, 0.5), 1, left_out="b")
    with pytest.raises(GeomoeError, match="no folder 'd' can be left out; there are: a, b, c"):
        items_by_folder(folders, Shares(), 0, left_out="d")


def test_images_of_each_folder_are_held_out():
    parts = items_by_folder(["a"] * 10 + ["b"] * 10, Shares(0.1, 0.3), 0)
    for some in (parts[:10], parts[10:]):
        assert [some.count(part) for part in PARTS] == [6, 1, 3]
    with pytest.raises(GeomoeError, match="too few to hold any out for validation"):
        items_by_folder(["a", "b"], Shares(), 0)


def scene(kind="blocks", seed=0, **options):
    """An image whose pixels say of which part they are: 1, 2, 3, or 0 of nobody."""
    labels = fields()
    places = split(kind, labels, seed, **options)
    image = torch.from_numpy(places.parts + 1.0).float()[None].repeat(2, 1, 1)
    return LabelledImage("made", image, torch.from_numpy(labels).short(), places)


def crops(images, patch=12, number=60, draw="pixels", **options):
    stream = CropStream(images, [-7.0, -7.0], patch, draw, 0, 0, number, **options)
    return [stream[i] for i in range(number)]


@pytest.mark.parametrize("buffer", [0, 3])
def test_no_crop_shows_a_pixel_of_another_part(buffer):
    for sample in crops([scene(side=8, buffer=buffer)]):
        assert sample["image"].shape == (2, 12, 12)
        assert set(sample["image"].unique().tolist()) <= {-7.0, 0.0, 1.0}
        assert torch.equal(sample["valid"], sample["image"][0] != -7)
        assert (sample["mask"] != IGNORED).any()
        assert (sample["image"][0][sample["mask"] != IGNORED] == 1).all()


@pytest.mark.parametrize(("part", "number"), [("validation", 2.0), ("test", 3.0)])
def test_no_held_out_image_shows_what_is_trained_on(part, number):
    batch = WholeImages([scene(side=8, buffer=2)], part, [-7.0, -7.0])[0]
    assert set(batch["image"].unique().tolist()) == {-7.0, 0.0, number}
    assert (batch["image"][0, 0][batch["mask"][0] != IGNORED] == number).all()


def test_random_pixels_are_shown_and_only_their_classes_are_not():
    for sample in crops([scene("pixels")]):
        assert sample["valid"].all()
        assert (sample["image"][0][sample["mask"] != IGNORED] == 1).all()


def test_statistics_are_of_the_training_part_alone():
    one = scene(side=8, buffer=2)
    wild = one.image.clone()
    wild[:, torch.from_numpy(~one.places.of("fit"))] = 1e6
    assert band_statistics([LabelledImage("wild", wild, one.mask, one.places)]) == ((1.0, 1.0), (1.0, 1.0))
    pixels = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    valid = np.array([[True, True], [True, False]])
    whole = LabelledImage("whole", pixels, torch.zeros(2, 2).short(), whole_image((2, 2), "fit"), valid)
    mean, deviation = band_statistics([whole])
    assert mean == (0.2,)
    assert deviation == (0.163299,)


def test_what_was_not_measured_is_hidden_and_has_no_class():
    labels = np.zeros((20, 20), int)
    valid = np.ones((20, 20), bool)
    valid[:, :10] = False
    image = torch.full((2, 20, 20), float("nan"))
    image[..., 10:] = 5
    one = LabelledImage("half", image, torch.from_numpy(labels).short(), whole_image((20, 20), "fit"), valid)
    assert class_counts([one], "fit", 2).tolist() == [[200, 0]]
    for sample in [*crops([one]), shown(one, "fit", [-7.0, -7.0])]:
        assert torch.equal(sample["valid"], sample["image"][0] == 5)
        assert torch.equal(sample["valid"], sample["mask"] != IGNORED)
        assert sample["image"].isfinite().all()


def test_small_images_are_filled_up_with_what_is_not_valid():
    small = LabelledImage("small", torch.ones(2, 5, 7), torch.zeros(5, 7).short(), whole_image((5, 7), "fit"))
    for sample in crops([small], number=8):
        assert sample["valid"].sum() == (sample["mask"] == 0).sum() == 35
        assert (sample["image"][:, ~sample["valid"]] == -7).all()


def test_processes_share_the_crops_of_one():
    images = [scene(), scene(seed=1)]
    alone = crops(images, number=8)
    shared = [crops(images, number=4, rank=rank, world=2) for rank in (0, 1)]
    for i, sample in enumerate(alone):
        assert all(torch.equal(sample[key], shared[i % 2][i // 2][key]) for key in sample)
    later = CropStream(images, [-7.0, -7.0], 12, "pixels", 0, 5, 3)
    assert torch.equal(later[0]["mask"], alone[5]["mask"])


def test_rare_classes_are_drawn_as_often_where_that_is_asked_for():
    labels = np.zeros((40, 40), int)
    labels[18:20, 18:20] = 1
    one = LabelledImage(
        "rare", torch.ones(2, 40, 40), torch.from_numpy(labels).short(), whole_image((40, 40), "fit")
    )
    rare = {
        draw: sum((s["mask"] == 1).any().item() for s in crops([one], 3, 200, draw))
        for draw in ("pixels", "classes")
    }
    assert rare["pixels"] < 20
    assert 80 < rare["classes"] < 120


def test_each_held_out_image_is_in_one_process():
    images = [scene(seed=seed) for seed in range(3)]
    held = [WholeImages(images, "test", [0.0, 0.0], rank, 2) for rank in (0, 1)]
    shares = [[share[i] for i in range(len(share))] for share in held]
    assert [[len(batch["image"]) for batch in share] for share in shares] == [[1, 1], [1, 0]]
    assert shares[1][1]["mask"].shape[0] == 0


def test_crops_need_a_class():
    with pytest.raises(GeomoeError, match="no pixel with a class"):
        CropStream([LabelledImage("none", torch.ones(1, 4, 4), torch.full((4, 4), IGNORED).short(),
                                  whole_image((4, 4), "fit"))], [0.0], 4, "pixels", 0, 0, 1)  # fmt: skip


def test_patches_have_one_class_in_their_middle():
    labels = np.full((6, 7), IGNORED, np.int16)
    labels[0, 0], labels[3, 4] = 1, 0
    image = torch.arange(42.0).view(1, 6, 7)
    everything = whole_image((6, 7), "fit")
    one = LabelledImage("one", image, torch.from_numpy(labels), everything)
    stream = CropStream([one], [-7.0], 5, "classes", 0, 0, 20, centre=True)
    samples = [stream[i] for i in range(20)]
    middles = {(int(sample["image"][0, 2, 2]), int(sample["mask"][2, 2])) for sample in samples}
    assert middles == {(0, 1), (3 * 7 + 4, 0)}
    for sample in samples:
        assert (sample["mask"] != IGNORED).sum() == 1
        beyond = sample["image"][0] == -7
        assert torch.equal(beyond, ~sample["valid"])
        assert int(beyond.sum()) == (16 if sample["image"][0, 2, 2] == 0 else 0)
