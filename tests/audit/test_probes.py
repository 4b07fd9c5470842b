"""Probes: effect sizes whose right answer is known, and what they say of routers that look at nothing."""

import numpy as np
import pytest
import torch

from geomoe.audit.features import image_features
from geomoe.audit.probes import probes, standardised_difference
from tests.audit.made import cells, check_drawn, codes, plan_of, subject


def images(number=24, seed=0, side=16):
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_brightness(x):
    light = cells(x, 4)
    return [plan_of((light > light.median()).long(), 2, (len(x), x.shape[2] // 4, x.shape[3] // 4))]


def by_chance(x):
    side = x.shape[2] // 4
    drawn = torch.randint(2, (len(x) * side * side,), generator=torch.Generator().manual_seed(int(x.sum())))
    return [plan_of(drawn, 2, (len(x), side, side))]


def test_standardised_difference_is_cohens_by_hand():
    # One expert has 1, 3, the other 5, 7: means 2 and 6, variances 1 each, so d = -4 and 4.
    moments = np.array([[[2.0], [2.0]], [[4.0], [12.0]], [[10.0], [74.0]]])
    assert standardised_difference(moments, moments.sum(1)).ravel() == pytest.approx([-4, 4])


def test_features_of_a_wave_are_its_own():
    w = 2 * np.pi / 5
    wave = (torch.arange(65) * w).sin().expand(1, 3, 65, 65) * 0.2 + 0.5
    brightness, contrast, edges, frequency = image_features(wave)[0, :, 20:45, 20:45].mean((1, 2))
    assert brightness == pytest.approx(0.5, abs=0.01)
    assert contrast == pytest.approx(0.2 / 2**0.5, rel=0.05)
    assert edges == pytest.approx(0.2 * 2 / np.pi * np.sin(w), rel=0.05)
    assert frequency == pytest.approx(w, rel=1e-3)
    flat = image_features(torch.full((1, 1, 8, 8), 0.3))
    torch.testing.assert_close(flat[0, 1:], torch.zeros(3, 8, 8), atol=1e-6, rtol=0)


def test_an_expert_of_light_places_is_called_so():
    section = probes(subject(images(), by_brightness))
    assert codes(section) == {"experts_differ": "note"}
    assert "brightness" in section.findings[0].text
    numbers = section.data["layer 0"]
    dark, light = (row[0] for row in numbers["difference"])
    assert light == pytest.approx(-dark)
    assert light > 1
    assert numbers["low"][1][0] < light < numbers["high"][1][0]
    assert numbers["share_of_rows"] == pytest.approx([0.5, 0.5])
    check_drawn(section)


def test_a_router_that_looks_at_nothing_is_found_out_at_the_stated_rate():
    found = [codes(probes(subject(images(seed=seed), by_chance))) for seed in range(20)]
    assert sum("experts_alike" in codes for codes in found) >= 17


def test_intervals_cover_no_difference_at_their_rate():
    covered = []
    for seed in range(30):
        numbers = probes(subject(images(seed=100 + seed), by_chance)).data["layer 0"]
        covered += [
            low < 0 < high for low, high in zip(numbers["low"][0][:4], numbers["high"][0][:4], strict=True)
        ]
    assert 0.88 <= np.mean(covered) <= 1


def test_classes_count_where_they_are_known():
    dark, light = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.8)
    both = torch.cat([dark, light]).repeat(8, 1, 1, 1) + 0.01 * images(16)
    section = probes(subject(both, by_brightness, labels=torch.tensor([0, 1] * 8)))
    _, expert, more, _, less, _ = section.tables[1].rows[1]
    assert (expert, more, less) == (1, "light", "dark")
    masks = torch.full((16, 16, 16), -1)
    masks[:, :8] = torch.tensor([0, 1] * 8)[:, None, None]
    section = probes(subject(both, by_brightness, masks=masks))
    assert section.tables[1].rows[1][2] == "light"
    check_drawn(section)


def test_few_samples_are_cut_into_blocks():
    section = probes(subject(images(2, side=64), by_brightness))
    assert "blocks of samples" in section.text
    assert section.data["layer 0"]["low"][0][0] is not None


def test_rows_that_are_no_part_of_the_image_are_left_out():
    def in_time(x):
        return [plan_of(torch.zeros(len(x) * 3).long(), 2, (len(x), 3))]

    section = probes(subject(images(), in_time))
    assert codes(section) == {"no_probes": "note"}
    assert "layer 0" in section.text
