"""Out-of-distribution scores: figures by hand, and routers that see, or do not see, what is strange."""

import numpy as np
import pytest
import torch

from geomoe.audit.ood import ood
from geomoe.audit.selective import (
    aurc,
    auroc,
    chance_of_alarms,
    difference_of_areas,
    risk_by_coverage,
    threshold_of,
)
from tests.audit.made import check_drawn, codes, plan_of, subject


def test_figures_by_hand():
    assert auroc(np.array([1.0, 2]), np.array([3.0, 4])).mean == 1
    assert auroc(np.array([1.0, 3]), np.array([2.0, 3])).mean == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert auroc(np.array([1.0]), np.array([2.0])).ends is None
    risks = np.array([0.0, 1, 0, 1])
    assert risk_by_coverage(np.array([1.0, 4, 2, 3]), risks).tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert aurc(np.array([1.0, 4, 2, 3]), risks) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert aurc(np.ones(4), risks) == pytest.approx(0.5), "equal scores are in no order"


def test_thresholds_let_through_what_they_say():
    assert threshold_of(np.arange(19.0), 0.05) == 18
    assert threshold_of(np.arange(99.0), 0.05) == 94
    assert threshold_of(np.arange(3.0), 0.05) == 2
    rng = np.random.default_rng(0)
    rates = [(rng.normal(size=200) > threshold_of(rng.normal(size=39), 0.05)).mean() for _ in range(300)]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)


def images(number=40, seed=0):
    """Smooth ones."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 3, 4, 4, generator=rng)
    return torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")


def by(signal):
    """Whole samples to two experts; the router is shown two numbers of each."""

    def rule(x):
        plan = plan_of((x.mean((1, 2, 3)) > 0.5).long(), 2, (len(x),))
        plan.logits[:] = signal(x)
        return [plan]

    return rule


def roughness(x):
    step = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3))
    return torch.stack([step, x.std((1, 2, 3))], 1)


def test_a_router_that_is_shown_roughness_tells_noise():
    section = ood(subject(images(), by(roughness), torch.arange(40) % 2))
    assert codes(section)["ood_told"] == "sound"
    assert codes(section)["alarms_as_stated"] == "sound"
    told = section.data["auroc"]["noise alone"]["routing distance"]
    assert told["auroc"] == 1
    low, high = told["interval_95"]
    assert 0.5 < low < high == 1, "20 samples do not show that all will be told"
    assert section.data["found"]["routing distance"]["noise alone"] == 1
    check_drawn(section)


def test_a_router_that_is_shown_nothing_of_it_is_called_blind():
    def nothing(x):
        return torch.stack([torch.zeros(len(x)), torch.ones(len(x))], 1)

    section = ood(subject(images(), by(nothing), torch.arange(40) % 2))
    assert codes(section)["ood_blind"] == "warning"
    assert section.data["auroc"]["noise alone"]["routing distance"]["auroc"] == 0.5


def test_risk_is_of_what_is_kept():
    light = images()
    labels = (light[:, 0].mean((1, 2)) > 0.5).long()
    labels[1::4] = 1 - labels[1::4]
    section = ood(subject(light, by(roughness), labels))
    areas = section.data["aurc"]
    assert areas["the risk itself"] < areas["any order"]
    assert areas["any order"] == pytest.approx(0.5), "of the samples that nothing was learned from"
    assert set(areas) == {"routing distance", "router entropy", "confidence", "any order", "the risk itself"}


def test_one_large_sample_is_scored_by_its_blocks():
    x = torch.nn.functional.interpolate(images(1), size=(64, 64), mode="bilinear")
    masks = (x[:, 0] > 0.5).long()

    def rule(x):
        grid = (len(x), *x.shape[2:])
        plan = plan_of((x[:, 0] > 0.5).long().flatten(), 2, grid)
        plan.logits[:, 0], plan.logits[:, 1] = x[:, 0].flatten(), x[:, 1].flatten()
        return [plan]

    def says(x):
        return torch.stack([1 - x[:, 0], x[:, 0]], 1)

    section = ood(subject(x, rule, masks=masks, says=says, kind="classes"))
    assert "blocks of samples" in section.text
    assert section.data["auroc"]["noise alone"]["routing distance"]["auroc"] > 0.5
    check_drawn(section)


def test_a_model_that_routes_nothing_has_no_score():
    assert codes(ood(subject(images(), lambda x: [], torch.arange(40) % 2))) == {"no_routing_score": "note"}


def test_how_many_alarms_are_too_many_is_exact():
    """Of one score beside the largest of n the chance to be above is 1 / (n + 1), whatever they are."""
    assert chance_of_alarms(1, 1, 9, 0.05) == pytest.approx(1 / 10)
    assert chance_of_alarms(0, 20, 20, 0.05) == 1
    rng = np.random.default_rng(0)
    alarms = np.array(
        [(rng.normal(size=20) > threshold_of(rng.normal(size=20), 0.05)).sum() for _ in range(4000)]
    )
    for number in (1, 3, 5):
        assert (alarms >= number).mean() == pytest.approx(chance_of_alarms(number, 20, 20, 0.05), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.2, 0.5, None])
def test_intervals_of_areas_cover_as_often_as_they_say(rate):
    """Of samples that are right or wrong, by ``rate``, and of any risks."""
    rng = np.random.default_rng(0)

    def draw():
        risks = rng.gamma(2, size=80) if rate is None else (rng.random(80) < rate).astype(float)
        return *(risks + rng.normal(0, spread, 80) for spread in (1.5, 0.8)), risks

    truth = np.mean([aurc(a, risks) - aurc(b, risks) for a, b, risks in (draw() for _ in range(2000))])
    found = [difference_of_areas(*draw()) for _ in range(160)]
    given = [ends for ends in found if ends is not None]
    assert len(given) > 100
    assert 0.9 <= np.mean([low <= truth <= high for low, high in given]) <= 0.995


def test_a_few_mistakes_have_no_interval():
    risks = np.zeros(50)
    risks[:11] = 1
    assert difference_of_areas(np.arange(50.0), None, risks) is None
    risks[11] = 1
    low, high = difference_of_areas(np.arange(50.0), None, risks)
    assert 0 < low < high, "the most suspicious are right ones"
