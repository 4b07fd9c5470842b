"""Images that parts of a split share are found, however they were saved again."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.leakage import Item, find_leaks, parts_of


def picture(seed, side=64):
    """Coarse forms with fine grain, as of a scene."""
    rng = np.random.default_rng(seed)
    coarse = gaussian_filter(rng.normal(size=(side, side, 3)), (8, 8, 0)) * 400
    return (128 + coarse + rng.normal(0, 12, (side, side, 1))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def split(tmp_path):
    """Twelve images of two parts, none of which is another's."""
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for number in range(6):
            Image.fromarray(picture(number + 100 * (part == "test"))).save(tmp_path / part / f"{number}.png")
    return tmp_path


def found_in(root):
    return find_leaks(parts_of(root))


def test_sound_parts_share_nothing(split):
    found = found_in(split)
    assert found.images == {"train": 6, "test": 6}
    assert not found.leaks
    assert not found.within


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_a_planted_test_image_is_found_under_every_flip_and_turn(split, flip, turns):
    array = picture(3)
    planted = np.rot90(array[:, ::-1] if flip else array, turns)
    Image.fromarray(np.ascontiguousarray(planted)).save(split / "test" / "leaked.jpg", quality=85)
    [leak] = found_in(split).leaks
    assert (leak.kind, leak.parts) == ("duplicate", ("train", "test"))
    assert leak.names == ("train/3.png", "test/leaked.jpg")
    assert leak.value > 0.9
    assert bool(leak.how) == bool(flip or turns)


def test_a_darker_copy_is_one(split):
    Image.fromarray(picture(2) // 2 + 20).save(split / "test" / "copy.png")
    assert [leak.names[0] for leak in found_in(split).leaks] == ["train/2.png"]


def test_a_copy_of_half_the_size_is_found(split):
    Image.fromarray(picture(1)).resize((32, 32), Image.Resampling.BOX).save(split / "test" / "small.png")
    assert [leak.names for leak in found_in(split).leaks] == [("train/1.png", "test/small.png")]


def test_what_is_merely_as_smooth_is_no_duplicate(split):
    """The same coarse forms under other grain: alike to the hash, not at full size."""
    rng = np.random.default_rng(7)
    for part in ("train", "test"):
        smooth = np.linspace(60, 180, 64)[:, None, None] + rng.normal(0, 4, (64, 64, 3))
        Image.fromarray(smooth.astype(np.uint8)).save(split / part / "shore.png")
    assert not found_in(split).leaks


def test_flat_images_are_not_called_each_others(split):
    for part in ("train", "test"):
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(split / part / "sea.png")
    assert not found_in(split).leaks


def test_duplicates_within_a_part_are_no_leaks(split):
    Image.fromarray(picture(4)).save(split / "train" / "again.png")
    found = found_in(split)
    assert not found.leaks
    assert [leak.names for leak in found.within] == [("train/4.png", "train/again.png")]


def tiff(path, seed, west):
    array = picture(seed)
    profile = {
        "driver": "GTiff",
        "width": 64,
        "height": 64,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32618",
    }
    with rasterio.open(path, "w", transform=from_origin(west, 4_000_000, 10, 10), **profile) as file:
        file.write(array.transpose(2, 0, 1))


def test_shared_ground_is_found_and_tiles_that_touch_are_not(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    tiff(tmp_path / "train" / "a.tif", 0, 500_000)
    tiff(tmp_path / "test" / "beside.tif", 1, 500_640)
    tiff(tmp_path / "test" / "over.tif", 2, 499_680)
    found = found_in(tmp_path)
    assert found.placed == 3
    assert [(leak.kind, leak.names) for leak in found.leaks] == [
        ("footprint", ("train/a.tif", "test/over.tif"))
    ]
    assert found.leaks[0].value == pytest.approx(0.5, abs=0.01)


def test_the_command_lists_pairs_and_ends_with_status_3(split, tmp_path, capsys):
    main(["data", str(split), "--leakage"])
    assert "0 pairs across parts" in capsys.readouterr().err
    Image.fromarray(picture(5)).save(split / "test" / "leaked.png")
    with pytest.raises(SystemExit) as stop:
        main(["data", str(split), "--leakage", "--json", str(tmp_path / "leaks.json")])
    assert stop.value.code == 3
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("duplicate  train train/5.png  test test/leaked.png  r 1.000")
    assert json.loads((tmp_path / "leaks.json").read_text())["leaks"][0]["names"][1] == "test/leaked.png"


def test_a_folder_may_be_held_against_another(split, tmp_path):
    (tmp_path / "apart").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "apart" / "x.png")
    [leak] = find_leaks(parts_of(split / "train", tmp_path / "apart")).leaks
    assert leak.names == ("train/0.png", "apart/x.png")


def test_what_cannot_be_read_is_told_and_the_rest_compared(split):
    (split / "test" / "bad.png").write_bytes(b"no image")
    found = found_in(split)
    assert len(found.unread) == 1
    assert "bad.png" in found.unread[0]


def test_what_has_no_split_is_refused(split):
    with pytest.raises(GeomoeError, match="has no split that is known"):
        parts_of(split / "train")
    with pytest.raises(GeomoeError, match="one part alone"):
        find_leaks([Item(split / "train" / "0.png", "0.png", "train")])
