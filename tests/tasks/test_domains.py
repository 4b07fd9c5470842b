"""Places: folders of images, of which a model is told in training alone."""

import shutil

import torch

from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.segmentation_data import SegmentationData
from tests.tasks.test_segmentation import folder


def test_crops_say_which_folder_they_are_of_and_whole_images_do_not(tmp_path):
    data = SegmentationData(str(folder(tmp_path)), split="images", test=0.25, validation=0.25, patch=8)
    assert data.domains == ("a", "b", "c")
    assert {int(sample["domain"]) for sample in map(data.stream(0, 40, 0, 1).__getitem__, range(40))} == {
        0,
        1,
        2,
    }
    held = data.held_out(0, 1)
    assert all("domain" not in held[i] for i in range(len(held)))
    assert all("domain" not in sample for _, sample in data.samples("test").samples)


def test_a_place_that_is_left_out_is_none_of_them(tmp_path):
    data = SegmentationData(str(folder(tmp_path)), split="folder", left_out="b", patch=8)
    assert data.domains == ("a", "c")
    assert {int(data.stream(0, 20, 0, 1)[i]["domain"]) for i in range(20)} == {0, 1}
    for name in ("a", "c"):
        shutil.rmtree(tmp_path / name)
    alone = SegmentationData(str(tmp_path), split="images", patch=8)
    assert alone.domains == (), "one place is not several"
    assert "domain" not in alone.stream(0, 1, 0, 1)[0]


def test_only_a_model_that_asks_is_told():
    task = Segmentation("unet", classes=("a", "b"), domains=("x", "y"), options={"width": 4, "depth": 1})
    batch = {"image": torch.rand(2, 3, 4, 4), "domain": torch.tensor([0, 1])}
    assert task.given(batch) == {}
    task.model.takes_domain = True
    assert task.given(batch)["domain"].tolist() == [0, 1]
