import pytest
import torch

from geomoe.metrics.average_accuracy import AverageAccuracy


def test_a_class_that_is_not_there_does_not_count_though_it_is_predicted():
    metric = AverageAccuracy(4)
    metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]))
    metric.update(torch.tensor([3]), torch.tensor([1]))
    assert float(metric.compute()) == pytest.approx((1 + 1 / 2) / 2)


def test_what_is_ignored_does_not_count():
    metric = AverageAccuracy(3, ignore_index=-1)
    metric.update(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, -1, 2]))
    assert float(metric.compute()) == pytest.approx((1 / 2 + 1) / 2)


def test_of_no_class_nothing_is_known():
    metric = AverageAccuracy(3, ignore_index=-1)
    metric.update(torch.tensor([0]), torch.tensor([-1]))
    assert metric.compute().isnan()
