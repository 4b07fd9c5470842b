"""Calibration: figures by hand, and models whose confidence is known to be right or wrong."""

import math

import pytest
import torch

from geomoe.audit.calibration import calibration, calibration_sums
from geomoe.models.reference import RoutingReference
from tests.audit.made import check_drawn, codes, plan_of, subject


def by_second_band(x):
    return [plan_of((x[:, 1].mean((1, 2)) > 0.5).long(), 2, (len(x),))]


def two_bands(number=400, right=(0.9, 0.6), seed=0):
    """Images of two experts in turn, and labels that are 1 as often as ``right`` says for each of them."""
    rng = torch.Generator().manual_seed(seed)
    expert = torch.arange(number) % 2
    labels = (torch.rand(number, generator=rng) < torch.tensor(right)[expert]).long()
    images = torch.zeros(number, 3, 8, 8)
    images[:, 1] = expert[:, None, None]
    return images, labels


def says(sure):
    """Class 1, with a probability for images of each expert."""

    def answer(x):
        p = torch.tensor(sure)[x[:, 1, 0, 0].long()]
        return torch.stack([1 - p, p], 1)

    return answer


def test_figures_of_answers_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    confidence, right, nll, brier = calibration_sums(p, torch.tensor([0, 1])).T.tolist()
    assert confidence == pytest.approx([0.7, 0.6])
    assert right == [1, 0]
    assert nll == pytest.approx([-math.log(0.7), -math.log(0.3)])
    assert brier == pytest.approx([0.09 + 0.04 + 0.01, 0.01 + 0.49 + 0.36])


def test_a_model_that_is_as_right_as_it_says_is_sound():
    images, labels = two_bands()
    section = calibration(subject(images, by_second_band, labels, says=says((0.9, 0.6))))
    assert codes(section) == {"calibrated": "sound"}
    assert section.data["all"]["ECE"] < 0.06
    assert section.data["expert 0"]["confidence"] == pytest.approx(0.9)
    assert section.data["expert 1"]["confidence"] == pytest.approx(0.6)
    check_drawn(section)


def test_the_expert_that_is_too_sure_is_named():
    images, labels = two_bands()
    section = calibration(subject(images, by_second_band, labels, says=says((0.9, 0.95))))
    found = [finding for finding in section.findings if finding.code == "too_sure"]
    assert [finding.level for finding in found] == ["warning", "warning"]
    assert "expert 1" in found[1].text
    numbers = section.data["expert 1"]
    low, high = numbers["low"], numbers["high"]
    assert low < 0.35 < high
    assert numbers["ECE"] == pytest.approx(abs(numbers["too sure"]), abs=1e-4), "one bin holds all"


def test_classes_of_pixels_count_where_they_are_known():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    masks = (image[:, 0] > 0.5).long()
    masks[:, :32] = -1

    def of_pixels(x):
        right = (x[:, :1] > 0.5).float()
        return torch.cat([1 - right, right], 1).clamp(0.2, 0.8)

    def rule(x):
        return [plan_of((x[:, 0] > 0.5).long().flatten(), 2, (len(x), 64, 64))]

    section = calibration(subject(image, rule, masks=masks, says=of_pixels, kind="classes"))
    assert section.data["all"]["number"] == 32 * 64
    assert codes(section) == {"too_unsure": "warning"}
    assert section.data["all"]["too sure"] == pytest.approx(-0.2)
    check_drawn(section)


def with_reference(threshold):
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def rule(x):
        plan = plan_of((x[:, 0] > 0.5).long().flatten(), 2, (len(x), 8, 8))
        plan.logits[:, 0], plan.logits[:, 1] = x[:, 0].flatten(), x[:, 1].flatten()  # what it is shown
        return [plan]

    reference = RoutingReference(
        torch.zeros(2).double(), torch.eye(2).double(), threshold, 0.99, "images held out of training"
    )
    return subject(x, rule, says=lambda x: x, kind="image", classes=(), reference=reference)


def test_reliability_of_the_card_is_compared_with_what_it_states():
    # The squared distance of two even numbers is below 0.25 in a quarter of a circle of radius 0.5.
    section = calibration(with_reference(0.25))
    assert section.data["found"] == pytest.approx(1 - math.pi / 16, abs=0.02)
    assert codes(section) == {"unlike_training": "warning"}
    check_drawn(section)
    assert codes(calibration(with_reference(1.9))) == {"as_stated": "sound"}


def test_without_either_it_says_so():
    made = with_reference(1.0)
    made.model.reference = None
    assert codes(calibration(made)) == {"not_calibrated": "note"}
