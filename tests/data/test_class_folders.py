"""Folders of classes: which data set they are, how they are split, how they are streamed."""

from collections import Counter
from functools import partial

import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.class_folders import class_names, labelled_files
from geomoe.data.datasets import DATA_SETS, DataSet, find_data_set, register
from geomoe.data.labels import LabelBatches, LabelStream, resized
from geomoe.data.split import Shares, items_by_folder


def images(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(root / name / f"{i:03}.png")
    return root


def test_each_class_keeps_its_share_in_every_part(tmp_path):
    images(tmp_path, a=100, b=20, c=5)
    parts = {part: labelled_files(tmp_path, part) for part in ("fit", "validation", "test")}
    counts = {part: Counter(one.label for one in listed) for part, listed in parts.items()}
    assert counts["test"] == {"a": 20, "b": 4, "c": 1}
    assert counts["validation"] == {"a": 4, "b": 1, "c": 1}
    every = [one.path for listed in parts.values() for one in listed]
    assert len(every) == len(set(every)) == 125
    assert parts["test"][0].name == "a/004.png"


@pytest.mark.parametrize(
    ("name", "below", "names"),
    [
        ("eurosat", "", ("AnnualCrop", "HerbaceousVegetation", "SeaLake")),
        ("eurosat", "EuroSAT_RGB", ("AnnualCrop", "HerbaceousVegetation", "SeaLake")),
        ("resisc45", "NWPU-RESISC45", ("airplane", "roundabout", "thermal_power_station")),
        (None, "", ("airplane", "roundabout")),
    ],
)
def test_data_sets_are_known_by_their_folders(tmp_path, name, below, names):
    images(tmp_path / below, **dict.fromkeys(names, 2))
    found = find_data_set(tmp_path)
    assert (found and found.name) == name
    assert class_names(tmp_path) == names


def test_a_data_set_is_added_by_registration_alone(tmp_path):
    images(tmp_path / "mine", x=3, y=3)
    number = {"fit": "000", "validation": "001", "test": "002"}

    def find(root):
        return root / "mine" if (root / "mine").is_dir() else None

    def files(root, part):
        return sorted((root / "mine").rglob(f"{number[part]}.png"))

    register(DataSet("mine", "Mine", "labels", "my own", "CC0", find, files))
    try:
        assert find_data_set(tmp_path, "labels").said == "my own; CC0"
        assert find_data_set(tmp_path, "masks") is None
        assert [file.name for file in labelled_files(tmp_path, "test")] == ["x/002.png", "y/002.png"]
    finally:
        del DATA_SETS["mine"]


def test_the_command_lists_data_sets_with_kind_source_and_terms(capsys):
    main(["data"])
    said = " ".join(capsys.readouterr().out.split())
    for one in DATA_SETS.values():
        assert one.name in said
        assert one.kind in ("labels", "masks", "cube", "plots", "pairs", "dates")
        assert one.source
        assert one.terms.split()[0] in said


def test_the_command_says_which_split_was_published(tmp_path, capsys):
    main(["data"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    published = {row[0] for row in rows if row and row[0] in DATA_SETS and "published" in row}
    made = {"radar_targets", "noisy_radar_targets", "radar_optical", "crowns"}
    assert published == {"ucmerced", "aid", "oli2msi", *made}
    (tmp_path / "indian_pines.npz").touch()
    main(["data", str(tmp_path)])
    assert "corn, no till; corn, minimum till; corn;" in capsys.readouterr().out


def test_the_command_says_what_a_folder_holds(tmp_path, capsys):
    images(tmp_path / "sat", AnnualCrop=1, HerbaceousVegetation=1, SeaLake=1)
    images(tmp_path / "mine", a=2, b=2)
    images(tmp_path / "flat", x=3)
    for folder, words in (("sat", "eurosat"), ("mine", "2 classes"), ("flat", "3 images")):
        main(["data", str(tmp_path / folder)])
        assert words in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for wrong, words in (("none", "does not exist"), ("empty", "holds no image")):
        with pytest.raises(SystemExit) as stop:
            main(["data", str(tmp_path / wrong)])
        assert stop.value.code == 1
        assert words in capsys.readouterr().err


def test_any_split_is_taken_in_place_of_the_usual_one(tmp_path):
    images(tmp_path, a=20, b=10)
    parts = {
        part: labelled_files(tmp_path, part, partial(items_by_folder, shares=Shares(0.1, 0.5), seed=1))
        for part in ("fit", "validation", "test", "train")
    }
    counts = {part: Counter(one.label for one in listed) for part, listed in parts.items()}
    assert (counts["test"], counts["validation"]) == ({"a": 10, "b": 5}, {"a": 2, "b": 1})
    assert counts["train"] == counts["fit"] + counts["validation"] == {"a": 10, "b": 5}
    assert {one.name for one in parts["train"]}.isdisjoint(one.name for one in parts["test"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "holds no image"),
        (lambda root: images(root, a=2), "images of one class, a"),
        (
            lambda root: Image.new("RGB", (4, 4)).save(images(root, a=2, b=2) / "x.png"),
            "x.png lies in no folder",
        ),
    ],
)
def test_what_is_no_folder_of_classes_is_said(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(GeomoeError, match=said):
        labelled_files(tmp_path, "fit")


def stream(start=0, length=20, **options):
    pixels = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1) * 30 + torch.arange(
        16, dtype=torch.uint8
    ).view(4, 4)
    return LabelStream(pixels.expand(7, 3, 4, 4), torch.arange(7), 1, start, length, **options)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("image", "label"))


def test_a_sample_depends_on_its_number_alone():
    whole, later = stream(), stream(start=9, length=11)
    assert all(same(whole[9 + i], later[i]) for i in range(11))
    shares = [stream(length=10, rank=rank, world=2) for rank in range(2)]
    assert all(same(whole[2 * i + rank], shares[rank][i]) for i in range(10) for rank in range(2))


def test_every_image_comes_once_before_any_comes_again():
    labels = [int(sample["label"]) for sample in map(stream(length=28).__getitem__, range(28))]
    assert all(sorted(labels[i : i + 7]) == list(range(7)) for i in range(0, 28, 7))
    assert labels[:7] != labels[7:14]


def test_images_are_turned_in_all_eight_ways_and_keep_their_values():
    seen = {}
    samples = stream(length=700)
    for i in range(700):
        image = samples[i]["image"]
        assert 0 <= image.min() <= image.max() <= 1
        seen.setdefault(int(samples[i]["label"]), set()).add(image.numpy().tobytes())
    assert {len(ways) for ways in seen.values()} == {8}


def test_images_with_an_up_are_not_turned():
    samples = stream(length=70, turned=False)
    seen = {
        (int(sample["label"]), sample["image"].numpy().tobytes())
        for sample in map(samples.__getitem__, range(70))
    }
    assert len(seen) == 7


def test_batches_hold_each_image_once_over_all_processes():
    pixels, labels = torch.zeros(11, 3, 4, 4, dtype=torch.uint8), torch.arange(11)
    for world in (1, 2, 3):
        shares = [LabelBatches(pixels, labels, 3, rank, world) for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        found = torch.cat([share[i]["label"] for share in shares for i in range(len(share))])
        assert sorted(found.tolist()) == list(range(11))


def test_images_are_brought_to_a_size_and_keep_their_type():
    ramp = (20 * torch.arange(12, dtype=torch.uint8)).expand(1, 8, 12)
    assert resized(ramp[..., :8], 8).data_ptr() == ramp.data_ptr()
    assert resized(ramp, 6).dtype == torch.uint8
    assert resized(ramp, 6)[0, 3, 1:-1].tolist() == [50, 90, 130, 170]  # pixels lie where two lay
    assert resized(torch.full((1, 8, 8), 0.5), 4).unique().tolist() == [0.5]
