"""Losses and metrics for classes that are not alike, against values by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from geomoe.data.legend import IGNORED
from geomoe.metrics.shots import ShotAccuracy, shots
from geomoe.models import load
from geomoe.tasks.classification_data import ClassificationData
from geomoe.tasks.long_tail import class_balanced, focal, logit_adjusted
from geomoe.tasks.segmentation import Segmentation
from tests.tasks.test_classification import classes, train


def test_logits_are_adjusted_by_the_classes_shares():
    logits, tail = torch.zeros(1, 2), torch.tensor([1])
    for strength, expected in ((0.0, 0.6931), (1.5, 3.3322), (-0.5, 0.2877)):
        loss = logit_adjusted(logits, tail, (90, 10), strength)
        assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_rare_classes_weigh_more_by_their_effective_number():
    logits = torch.zeros(2, 2)
    frequent, rare = class_balanced(logits, torch.tensor([0, 1]), (1000, 1)).tolist()
    assert rare / frequent == pytest.approx((1 - 0.999**1000) / 0.001, rel=1e-4)
    assert (rare + frequent) / 2 == pytest.approx(math.log(2), rel=1e-5)
    even = class_balanced(torch.tensor([[1.0, 2]]), torch.tensor([0]), (7, 7))
    torch.testing.assert_close(even, F.cross_entropy(torch.tensor([[1.0, 2]]), torch.tensor([0]))[None])


def test_focal_loss_hardly_counts_what_is_right():
    logits = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    loss = focal(logits, torch.tensor([0, 0]))
    assert float(loss[0]) == pytest.approx(0.25 * math.log(2), rel=1e-5)
    p = 1 / (1 + math.exp(-4))
    assert float(loss[1]) == pytest.approx((1 - p) ** 2 * -math.log(p), rel=1e-3)


def test_pixels_without_a_class_do_not_count():
    task = Segmentation("unet", shares=(90, 10), options={"width": 4, "depth": 1})
    logits, truth = torch.randn(2, 2, 3, 4), torch.randint(2, (2, 3, 4))
    other, truth[:, 1] = logits.clone(), IGNORED
    other[:, :, 1] = 100
    for name in ("class_balanced", "focal", "logit_adjusted"):
        loss = task.known_losses()[name]
        torch.testing.assert_close(loss(logits, truth), loss(other, truth))


def test_classes_are_grouped_by_their_samples():
    assert shots([72, 24, 23, 8, 7, 3]) == {"many": [0, 1], "medium": [2, 3], "few": [4, 5]}
    assert shots([72, 30, 8]) == {}
    metric = ShotAccuracy(3, [1, 2])
    metric.update(torch.tensor([0, 1, 0, 0]), torch.tensor([0, 1, 1, 0]))
    assert metric.compute() == 0.5, "class 2 is not there"


def test_even_draws_are_of_training_alone(tmp_path):
    folder = classes(tmp_path, count=20)
    data = ClassificationData(str(folder), size=8, imbalance=0.2, draw="classes")
    names = [name for name, _ in data.samples("test").samples]
    assert len(set(names)) == len(names) == 3 * 4, "each test image once"
    batches = data.held_out(0, 1)
    seen = sum(len(batches[i]["label"]) for i in range(len(batches)))
    assert seen == len(data.samples("validation").samples)


def test_only_what_is_trained_on_is_thinned_and_the_card_finds_it_again(tmp_path):
    folder = classes(tmp_path / "classes", count=30)
    even, thin = ClassificationData(str(folder), size=8), ClassificationData(
        str(folder), size=8, imbalance=0.1
    )  # fmt: skip
    assert sorted(thin.counts.values()) == [2, 7, 23]
    for part in ("validation", "test"):
        assert [n for n, _ in thin.samples(part).samples] == [n for n, _ in even.samples(part).samples]
    fit = [name for name, _ in thin.samples("fit").samples]
    assert len(fit) == 32
    train(folder, tmp_path, "--data.imbalance=0.1", "--data.draw=classes",
          "--model.losses={logit_adjusted: 1.0}", steps=4)  # fmt: skip
    weights = load(str(tmp_path / "last.safetensors"))
    assert [n for n, _ in ClassificationData.named(folder, "fit", weights).samples] == fit
    assert weights.card.recipe["draw"] == "classes"
    assert {"many", "few"} < set(weights.card.scores)
