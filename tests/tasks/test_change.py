"""Change between two dates: which metrics are told, and of which class."""

import pytest
import torch

from geomoe.tasks.segmentation import Segmentation


def test_of_two_classes_the_second_is_scored_by_itself():
    task = Segmentation(
        "unet", classes=("unchanged", "changed"), shares=(9.0, 1.0), options={"width": 4, "depth": 1}
    )
    truth = torch.tensor([[[1, 1, 1, 0, 0, 0, -1, -1]]])
    said = torch.tensor([[[1, 1, 0, 1, 0, 0, 1, 0]]])
    answer = torch.nn.functional.one_hot(said, 2).movedim(-1, 1).float()
    metrics = task.metrics()
    metrics.update(answer, truth)
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["iou"] == pytest.approx(2 / 4)
    assert found["kappa"] == pytest.approx((4 / 6 - 0.5) / 0.5)


def test_more_classes_have_no_second():
    metrics = Segmentation("unet", classes=("a", "b", "c"), options={"width": 4, "depth": 1}).metrics()
    assert set(metrics) == {"oa", "aa", "kappa", "miou", "mf1"}
