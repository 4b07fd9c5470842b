"""Agreement of plans when images are cut elsewhere: known where what routers look at is known."""

import pytest
import torch

from geomoe.audit.stability import over_chance, overlap, stability
from tests.audit.made import check_drawn, codes, plan_of, subject


def images(number=12, side=32, seed=0):
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_content(x):
    return [plan_of((x[:, 0] > 0.5).long().flatten(), 2, (len(x), *x.shape[2:]))]


def by_place(x):
    """Which half of a period of two pixels a pixel lies in, whatever it shows."""
    column = torch.arange(x.shape[3]) % 2
    return [plan_of(column.repeat(len(x) * x.shape[2]), 2, (len(x), *x.shape[2:]))]


def test_overlap_is_what_gates_have_in_common():
    a, b = (
        torch.tensor([[1.0, 0, 0], [0.7, 0.3, 0], [0.5, 0.5, 0]]),
        torch.tensor([[0.0, 0, 1]] * 2 + [[0.5, 0, 0.5]]),
    )
    assert overlap(a, b).tolist() == [0, 0, 0.5]
    assert overlap(a, a).tolist() == pytest.approx([1, 1, 1])
    assert over_chance(0.75, 0.5) == 0.5
    assert over_chance(1.0, 1.0) == 1


def test_a_router_that_looks_at_pixels_agrees_wholly():
    section = stability(subject(images(), by_content))
    assert codes(section) == {"stable_under_shifts": "sound"}
    found = section.data["layer 0"]
    assert set(found) == {"1", "2", "4", "8"}
    assert all(each["agreement"] == 1 for each in found.values())
    assert found["1"]["chance"] == pytest.approx(0.5, abs=0.03)
    check_drawn(section)


def test_a_router_that_looks_at_the_place_is_found():
    section = stability(subject(images(), by_place))
    assert codes(section) == {"unstable_under_shifts": "warning"}
    found = section.data["layer 0"]
    assert [found[s]["agreement"] for s in ("1", "2")] == [0, 1], "a period of two pixels"


def test_samples_and_one_large_one_are_compared_too():
    def whole(x):
        return [plan_of((x.mean((1, 2, 3)) > 0.5).long(), 2, (len(x),))]

    both = torch.cat([images(6) * 0.4, images(6) * 0.4 + 0.6])
    found = stability(subject(both, whole)).data["layer 0"]["1"]
    assert found["agreement"] == 1
    section = stability(subject(images(1, 64), by_content))
    low, high = section.data["layer 0"]["4"]["interval_95"]
    assert 0.8 < low < high == 1
    assert "blocks" in section.text


def test_without_maps_there_is_nothing_to_compare():
    def in_time(x):
        return [plan_of(torch.zeros(len(x) * 3).long(), 2, (len(x), 3))]

    assert codes(stability(subject(images(), in_time))) == {"no_shifts": "note"}
