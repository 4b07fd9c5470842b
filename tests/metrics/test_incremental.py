"""Metrics of learning in sessions, at values that a hand can work out."""

import pytest
import torch

from geomoe.metrics.incremental import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    of_sessions,
)

# Session 1 falls from .9 over .6 to .5, session 2 rises from .7 to .8.
MATRIX = torch.tensor([[0.9, 0.1, 0.2], [0.6, 0.7, 0.3], [0.5, 0.8, 0.6]])
ONE = torch.tensor([[0.9]])


def test_average_accuracy_is_over_what_is_known_by_then():
    assert average_accuracy(MATRIX).tolist() == pytest.approx([0.9, (0.6 + 0.7) / 2, (0.5 + 0.8 + 0.6) / 3])
    weighed = average_accuracy(MATRIX, torch.tensor([10, 30, 10])).tolist()
    assert weighed == pytest.approx([0.9, (6 + 21) / 40, (5 + 24 + 6) / 50])


def test_forgetting_is_from_the_best_that_there_was():
    assert float(forgetting(MATRIX)) == pytest.approx(((0.9 - 0.5) + (0.7 - 0.8)) / 2)
    risen = torch.tensor([[0.5, 0, 0], [0.8, 0.6, 0], [0.7, 0.6, 0.5]])  # the best is not the first
    assert float(forgetting(risen)) == pytest.approx(((0.8 - 0.7) + 0) / 2)


def test_what_stands_above_the_diagonal_is_not_forgotten():
    other = MATRIX.clone()
    other[0, 1:] = other[1, 2] = 1.0
    assert forgetting(other) == forgetting(MATRIX)
    assert torch.equal(average_accuracy(other), average_accuracy(MATRIX))
    assert backward_transfer(other) == backward_transfer(MATRIX)


def test_backward_transfer_is_from_right_after_their_own_session():
    assert float(backward_transfer(MATRIX)) == pytest.approx(((0.5 - 0.9) + (0.8 - 0.7)) / 2)


def test_forward_transfer_is_over_an_untrained_model():
    assert float(forward_transfer(MATRIX, torch.full((3,), 0.1))) == pytest.approx((0.0 + 0.2) / 2)


def test_intransigence_is_what_a_reference_does_better():
    reference = torch.tensor([0.8, 0.8, 0.8])
    assert float(intransigence(MATRIX, reference)) == pytest.approx((-0.1 + 0.1 + 0.2) / 3)


def test_one_session_forgets_nothing_that_could_be_measured():
    assert forgetting(ONE).isnan()
    assert backward_transfer(ONE).isnan()
    assert forward_transfer(ONE, torch.zeros(1)).isnan()
    assert average_accuracy(ONE).tolist() == pytest.approx([0.9])


def test_a_row_is_the_accuracy_of_each_session():
    right = torch.tensor([True, False, True, True])
    row = of_sessions(right, torch.tensor([0, 0, 2, 2]), 3)
    assert row[[0, 2]].tolist() == [0.5, 1.0]
    assert row[1].isnan()
