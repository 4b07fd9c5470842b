"""Made fields: heads in rows, and a folder that is known by its stages of growth."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.datasets import find_data_set
from geomoe.data.fields import FIELDS, STAGES, field_sample, heads_of, make_fields
from geomoe.tasks.segmentation_data import SegmentationData

FEW = {"train": 4, "test": 2, "late": 2}


def sample(seed=0, stage="train"):
    return field_sample(np.random.default_rng(seed), STAGES[stage])


def test_heads_stand_apart_and_have_the_radii_of_their_stage():
    for seed in range(5):
        image, mask = sample(seed)
        assert (image.shape, image.dtype, mask.shape, set(np.unique(mask))) == (
            (128, 128, 3), np.uint8, (128, 128), {0, 1}
        )  # fmt: skip
        heads, number = label(mask)
        assert 20 <= number <= 45, "about one for each 22 by 20 pixels"
        whole = [
            n for n in range(1, number + 1) if not {*heads[0], *heads[-1], *heads[:, 0], *heads[:, -1]} & {n}
        ]
        radii = np.sqrt([(heads == n).sum() / np.pi for n in whole])
        assert 3.5 < radii.min() < radii.max() < 13.5  # two that touch count as one
    shares = [np.mean([sample(seed, stage)[1] for seed in range(5)]) for stage in ("train", "late")]
    assert shares[0] < 0.4 < 0.6 < shares[1]


def test_heads_are_green_and_soil_is_not_but_for_weeds():
    green = []
    for seed in range(10):
        image, mask = sample(seed)
        more = image[..., 1].astype(float) > image[..., 0]
        assert more[mask == 1].mean() > 0.95
        green.append(more[mask == 0].mean())
    assert 0.05 < np.mean(green) < 0.15, "weeds, as many as heads"


def test_half_of_a_field_lies_in_shadow():
    image = np.mean([sample(seed)[0][..., 0] for seed in range(1)], 0)
    soil = image[sample()[1] == 0]
    dark = soil < 0.75 * np.median(np.sort(soil)[len(soil) // 2 :])
    assert 0.15 < dark.mean() < 0.85


def test_heads_that_touch_are_several(tmp_path):
    make_fields(tmp_path / "fields", seed=3, number=FEW)
    for stage, more in (("test", 1.0), ("late", 10.0)):
        numbers = heads_of(f"{stage}/001.png", seed=3)
        mask = np.array(Image.open(tmp_path / "fields" / stage / "001_mask.png"))
        assert np.array_equal(numbers > 0, mask == 1)
        heads, count = len(np.unique(numbers)) - 1, label(mask)[1]
        assert 20 <= heads <= 45
        assert heads >= more * count


def test_a_folder_is_known_and_its_stages_can_be_left_out(tmp_path):
    make_fields(tmp_path / "fields", number=FEW)
    known = find_data_set(tmp_path / "fields")
    assert (known.name, known.legend.names) == ("fields", ("soil", "cabbage"))
    data = SegmentationData(
        str(tmp_path / "fields"), split="folder", left_out=["test", "late"], validation=0.25
    )
    assert data.classes == ("soil", "cabbage")
    names = [name for name, _ in data.samples("test").samples]
    assert sorted(names) == ["late/000.png", "late/001.png", "test/000.png", "test/001.png"]
    assert len(data.samples("fit").samples) == 3


def test_the_same_seed_makes_the_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_fields(tmp_path / name, seed, {"train": 1, "test": 1})
    a, b, c = ([p.read_bytes() for p in sorted((tmp_path / name).rglob("*.png"))] for name in "abc")
    assert a == b != c
    assert a[0] != a[2], "another field in each folder"


def test_the_command_makes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("geomoe.data.fields.FIELDS", FEW)
    main(["data", str(tmp_path / "new"), "--make", "fields"])
    assert "soil; cabbage" in capsys.readouterr().out
    assert sum(FIELDS.values()) == 600
    with Image.open(tmp_path / "new" / "late" / "001_mask.png") as mask:
        assert mask.size == (128, 128)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(GeomoeError, match="No space left"):
        make_fields(tmp_path / "made", number=FEW)
    with pytest.raises(GeomoeError, match="is there already"):
        make_fields(tmp_path, number=FEW)
    assert not list(tmp_path.iterdir())
