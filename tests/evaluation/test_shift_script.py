"""How far places lie apart by benchmarks/shift.py, of gates that were written by hand."""

import pytest
import torch

from tests.scripts import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("shift")


def test_uses_of_experts_lie_apart_by_what_would_have_to_move(script):
    # Of the first mixture nothing is in common, of the second a quarter would move; how many rows there were
    # does not matter.
    one = [torch.tensor([4.0, 0.0]), torch.tensor([2.0, 2.0])]
    other = [torch.tensor([0.0, 1.0]), torch.tensor([3.0, 1.0])]
    assert script.apart(one, other) == pytest.approx((1 + 0.25) / 2)
    assert script.apart(one, one) == 0


def test_a_seen_place_is_compared_with_the_others_and_a_held_out_one_with_all(script):
    seen = {"a": [torch.tensor([1.0, 0.0])], "b": [torch.tensor([0.0, 1.0])], "c": [torch.tensor([1.0, 1.0])]}
    found = script.moved(seen, {"z": [torch.tensor([5.0, 0.0])]})
    assert found == pytest.approx({"a": 2 / 3, "b": 2 / 3, "c": 0.0, "z": 0.5})
