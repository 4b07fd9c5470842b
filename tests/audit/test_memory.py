"""An audit reads samples batch by batch and forgets them: memory does not grow with their number."""

import weakref
from dataclasses import replace

import pytest

from geomoe.audit.counterfactuals import counterfactuals
from geomoe.audit.dependence import dependence
from geomoe.audit.gradient import gradient
from geomoe.audit.usage import usage
from geomoe.data.sample import Lazy
from geomoe.evaluation import samples
from tests.audit.planted import planted

BATCH = 4


@pytest.mark.parametrize("question", [counterfactuals, gradient, usage, dependence])
def test_no_more_than_two_batches_are_held(question, monkeypatch):
    monkeypatch.setattr(samples, "_PIXELS", BATCH * 9)
    subject = planted(side=3, count=40)
    pairs = subject.samples.samples
    alive, most = weakref.WeakSet(), 0

    class Held:
        """Lives as long as the image that it hangs on."""

    def read(place):
        nonlocal most
        sample = {key: value.clone() for key, value in pairs[place][1].items()}
        sample["image"].held = Held()
        alive.add(sample["image"].held)
        most = max(most, len(alive))
        return pairs[place][0], sample

    lazy = Lazy(read, range(len(pairs)))
    question(replace(subject, samples=replace(subject.samples, samples=lazy)))
    assert 0 < most <= 2 * BATCH + 1
