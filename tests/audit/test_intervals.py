"""Intervals that a report prints cover the truth as often as they say, of what is near a bound, too."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from geomoe import GeomoeError
from geomoe.audit.against import _Pair
from geomoe.audit.calibration import _Answers
from geomoe.audit.oracle import oracle_plan
from geomoe.audit.probes import Sums, _effects
from geomoe.audit.selective import auroc
from geomoe.audit.stability import _Agreement
from geomoe.audit.units import Scored, score_units
from geomoe.evaluation.statistics import bounded_interval
from geomoe.moe import RoutingTrace
from geomoe.moe.plan import Replay
from tests.audit.made import plan_of
from tests.audit.planted import planted
from tests.audit.test_known_values import blind_to_the_last


def covered(draw, truth, runs):
    """Share of runs whose ``(low, high)`` holds the truth; those without an interval do not count."""
    found = [ends for ends in (draw() for _ in range(runs)) if ends is not None and not np.isnan(ends[0])]
    assert len(found) > runs / 3
    return np.mean([low <= truth <= high for low, high in found])


def shares(rng, mean, alike, number):
    """Of samples, with this mean; the fewer are ``alike`` the more of them are all or none."""
    return rng.beta(alike * mean, alike * (1 - mean), number)


@pytest.mark.parametrize(
    ("mean", "alike"), [(0.5, 3), (0.9, 30), (0.97, 5), (0.99, 5), (0.01, 10), (0.95, None), (0.8, None)]
)
@pytest.mark.parametrize("number", [16, 36])
def test_those_of_shares_cover(mean, alike, number):
    rng = np.random.default_rng(0)

    def draw():
        if alike is None:  # right or wrong
            return bounded_interval((rng.random(number) < mean).astype(float)).ends
        sizes = rng.integers(30, 200, number)
        return bounded_interval(rng.binomial(sizes, shares(rng, mean, alike, number)) / sizes, sizes).ends

    assert covered(draw, mean, 100) >= 0.9


def test_shares_by_hand():
    all_right = bounded_interval(np.ones(20))
    assert (all_right.mean, all_right.high) == (1, 1)
    assert all_right.low == pytest.approx(0.908, abs=0.01), "2.5 % of Beta(20 + 1/3, 1/3)"
    half = bounded_interval(np.array([0.0, 1.0] * 10))
    assert (half.low, half.high) == pytest.approx((0.292, 0.708), abs=0.01), "of Beta(10 + 1/3, 10 + 1/3)"
    moved = bounded_interval(np.full(20, -0.2), bounds=(-0.2, 0.8))
    assert (moved.low, moved.high) == pytest.approx((-0.2, -0.2 + 1 - all_right.low), abs=0.01)
    assert bounded_interval(np.ones(1)).ends is None
    with pytest.raises(GeomoeError, match="expected one for each"):
        bounded_interval(np.ones(0))


@pytest.mark.parametrize("mean", [0.6, 0.95])
def test_those_of_agreement_under_shifts_cover(mean):
    rng, clusters = np.random.default_rng(0), torch.arange(32).repeat_interleave(16)

    def draw():
        stays = torch.from_numpy(rng.random((32, 16)) < shares(rng, mean, 6, 32)[:, None]).flatten()
        before = torch.from_numpy(rng.integers(4, size=32 * 16))
        after = torch.where(stays, before, (before + 1) % 4)
        found = _Agreement()
        found.add(one_hot(before, 4).float(), one_hot(after, 4).float(), clusters)
        return found.interval.ends

    assert covered(draw, mean, 80) >= 0.9


@pytest.mark.parametrize("mean", [0.6, 0.95])
def test_those_of_agreement_of_two_weights_cover(mean):
    """Experts of the other weights have other names, which half of the samples tell for the other half."""
    rng, clusters = np.random.default_rng(0), torch.arange(20).repeat_interleave(12)
    names = torch.tensor([2, 0, 3, 1])

    def draw():
        alike = torch.from_numpy(rng.random((20, 12)) < shares(rng, mean, 6, 20)[:, None]).flatten()
        mine = torch.from_numpy(rng.integers(4, size=20 * 12))
        other = (mine + torch.from_numpy(rng.integers(1, 4, size=20 * 12))) % 4
        theirs = names[torch.where(alike, mine, other)]
        pair = _Pair(4, 4)
        pair.add(plan_of(mine, 4, (20 * 12,)), plan_of(theirs, 4, (20 * 12,)), clusters)
        return pair.result(0)[0].ends

    assert covered(draw, mean, 80) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("accuracy", "pixels"), [(0.98, 1), (0.8, 1), (0.9, 20)])
def test_those_of_confidence_less_accuracy_cover(accuracy, pixels):
    """Answers are right as often as they say, and of an image more or less so."""
    rng, clusters = np.random.default_rng(0), torch.arange(60).repeat_interleave(pixels)

    def draw():
        sure = torch.from_numpy(0.5 + shares(rng, 2 * accuracy - 1, 8, 60) / 2).repeat_interleave(pixels)
        right = torch.from_numpy(rng.random(60 * pixels)) < sure
        answers = _Answers(2)
        answers.add(torch.stack([1 - sure, sure], 1), right.long(), clusters)
        figures = answers.figures()
        return figures["low"], figures["high"]

    assert covered(draw, 0, 100) >= 0.9


@pytest.mark.parametrize("area", [0.664, 0.9, 0.98, 0.995])
@pytest.mark.parametrize("together", [0.0, 0.6, -0.5])
def test_those_of_auroc_cover(area, together):
    """Of normal scores, clean and strange ones of a sample alike or not; near perfect separation, too."""
    rng, apart = np.random.default_rng(0), {0.664: 0.6, 0.9: 1.812, 0.98: 2.904, 0.995: 3.643}[area]

    def draw():
        clean, other = rng.normal(size=(2, 32))
        return auroc(clean, together * clean + (1 - together**2) ** 0.5 * other + apart).ends

    assert covered(draw, area, 200) >= 0.9


def test_perfect_separation_is_not_certain():
    found = auroc(np.arange(20.0), np.arange(20.0) + 50)
    assert (found.mean, found.high) == (1, 1)
    assert found.low == pytest.approx(20 / (20 + 2.093**2), abs=1e-3), "Wilson's of 20 in 20, by Student's t"
    none = auroc(np.arange(20.0) + 50, np.arange(20.0))
    assert (none.low, none.high) == pytest.approx((0, 1 - found.low))


def rows(rng, number, apart, kind):
    """Moments ``[S, 3, E, 1]`` of a feature over the rows of two experts: those of the second have more."""
    expert = rng.random((number, 16)) < rng.beta(2, 2, number)[:, None]
    if kind == "rare class":  # one an image, and more of its rows go to the second expert
        image = rng.random((number, 1)) < 0.1
        expert = rng.random((number, 16)) < np.where(image, 0.5 + 0.2 * apart, 0.5)
        values = np.broadcast_to(image, expert.shape).astype(float)
    else:
        draw = {"normal": rng.normal, "skewed": lambda size: rng.gamma(3, 3**-0.5, size)}[kind]
        # Rows of an image are alike.
        values = 0.7**0.5 * draw(size=(number, 16)) + 0.3**0.5 * draw(size=(number, 1)) + apart * expert
    given = [[(mine * values**power).sum(1) for power in range(3)] for mine in (~expert, expert)]
    return np.array(given).transpose(2, 1, 0)[..., None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "apart", "number"),
    [("normal", 1, 10), ("normal", 2, 32), ("skewed", 1, 32), ("rare class", 1, 40), ("rare class", 2, 40)],
)
def test_those_of_cohens_d_cover_where_there_is_a_difference(kind, apart, number):
    rng = np.random.default_rng(0)

    def found(samples):
        given = rows(rng, samples, apart, kind)
        sums = Sums(dict(enumerate(given)), dict(enumerate(given.sum(2))), np.ones(2))
        return _effects(sums, 0)

    truth = float(np.mean([found(4000).d[1, 0] for _ in range(4)]))
    assert truth > 0.1

    def draw():
        each = found(number)
        return each.low[1, 0], each.high[1, 0]

    assert covered(draw, truth, 150) >= 0.9


@pytest.mark.parametrize("blocks", [16, 36])
def test_those_of_the_gap_to_the_oracle_cover(blocks):
    """Of blocks of many images with a router that is blind to one of four modes, some are drawn at a time."""
    subject = planted(blind_to_the_last(), dense=True, side=9, count=100)
    everything = Scored()
    learned = Scored()
    for _, batch in subject.batches():
        trace = RoutingTrace()
        prediction = subject.predict(batch, trace)
        best, _ = oracle_plan(
            subject.task,
            batch,
            trace[0],
            prediction,
            lambda plan, batch=batch: subject.predict(batch, Replay([plan])),
        )
        learned.add(score_units(subject.task, prediction, batch, 3))
        everything.add(score_units(subject.task, subject.predict(batch, Replay([best])), batch, 3))
    rng = np.random.default_rng(0)
    for monitor in ("oa", None):
        truth = learned.gain(everything, monitor).mean

        def draw(monitor=monitor):
            at = rng.integers(len(learned.size), size=blocks)
            mine, best = (
                Scored(*(np.array(values)[at].tolist() for values in (of.metric, of.loss, of.size)))
                for of in (learned, everything)
            )
            return mine.gain(best, monitor).ends

        assert truth < -0.1
        assert covered(draw, truth, 400) >= 0.9
