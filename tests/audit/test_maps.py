"""Expert maps: drawn for every kind of row, and found where they do not lie where they should."""

import pytest
import torch
import torch.nn.functional as F

from geomoe.audit.maps import explained, maps, shifts_of
from tests.audit.made import cells, check_drawn, codes, plan_of, subject


def images(number=12, side=64, seed=0):
    """Patches of 16 pixels' size, smooth between."""
    coarse = torch.rand(number, 1, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(side, side), mode="bilinear").expand(-1, 3, -1, -1)


def by_brightness(side, shift=0):
    """Of squares of ``side`` of the image, as if it lay ``shift`` pixels farther down and right."""

    def rule(x):
        light = cells(x.roll((shift, shift), (2, 3)), side)
        bounds = light.quantile(torch.tensor([0.25, 0.5, 0.75]))
        grid = (len(x), x.shape[2] // side, x.shape[3] // side)
        return [plan_of(torch.bucketize(light, bounds), 4, grid)]

    return rule


def test_a_map_explains_what_it_is_made_of():
    experts = torch.tensor([0, 0, 1, 1])
    assert explained(experts, torch.tensor([[1.0], [1], [3], [3]])) == pytest.approx(1)
    assert explained(experts, torch.tensor([[1.0], [3], [1], [3]])) == pytest.approx(0)
    # Between: means 1.5 and 3.5 of 4 places, 4 of a total of 5.
    assert explained(experts, torch.tensor([[1.0], [2], [3], [4]])) == pytest.approx(0.8)


def test_shifts_are_halves_and_wholes():
    assert set(shifts_of(8, 64, 64)) == {
        (y * s, x * s) for s in (4, 8) for y in (-1, 0, 1) for x in (-1, 0, 1)
    }
    assert max(y for y, _ in shifts_of(1, 16, 16)) == 4
    assert shifts_of(16, 16, 16) == [(0, 0)]


@pytest.mark.parametrize("side", [8, 1])
def test_maps_in_place_are_found_sound(side):
    section = maps(subject(images(), by_brightness(side)))
    assert codes(section) == {"maps_in_place": "sound"}
    check_drawn(section)


@pytest.mark.parametrize("side", [8, 1])
def test_a_map_that_is_moved_by_half_a_tile_is_found(side):
    section = maps(subject(images(), by_brightness(side, shift=4)))
    assert codes(section) == {"shifted_map": "fault"}
    assert "moved by -4 pixels down and -4 across" in section.findings[0].text
    check_drawn(section)


def test_a_router_that_looks_at_nothing_has_no_place():
    def rule(x):
        drawn = torch.randint(
            4, (len(x) * 64,), generator=torch.Generator().manual_seed(int(1e4 * x.sum()) % 2**31)
        )
        return [plan_of(drawn, 4, (len(x), 8, 8))]

    found = [codes(maps(subject(images(seed=seed), rule))) for seed in range(12)]
    assert sum("maps_in_place" in each for each in found) >= 10


def test_one_large_sample_is_cut_into_parts():
    assert codes(maps(subject(images(1, 256), by_brightness(1, shift=8)))) == {"shifted_map": "fault"}
    assert codes(maps(subject(images(1, 256), by_brightness(1)))) == {"maps_in_place": "sound"}


def test_layers_that_decide_for_whole_samples_have_a_bar():
    def rule(x):
        return [plan_of((x.mean((1, 2, 3)) > 0.5).long(), 2, (len(x),)), *by_brightness(8)(x)]

    section = maps(subject(images(), rule))
    assert "bar of their gates" in section.figures[0].caption
    check_drawn(section)
    alone = maps(subject(images(), lambda x: rule(x)[:1]))
    assert codes(alone) == {"no_maps": "note"}
    check_drawn(alone)


def test_maps_that_do_not_vary_are_not_tried():
    def rule(x):
        return [plan_of(torch.zeros(len(x) * 64).long(), 2, (len(x), 8, 8))]

    section = maps(subject(images(), rule))
    assert codes(section) == {"maps_not_tried": "note"}
    check_drawn(section)
