"""An audit tells how far it is, by batches within its sections."""

from functools import partial

import torch

from geomoe.audit.rows import fewer
from geomoe.audit.run import Step, audit
from geomoe.audit.section import Section
from tests.audit.made import plan_of, subject


def one_expert(x):
    return [plan_of(torch.zeros(len(x)).long(), 2, (len(x),))]


def passes(subject, *, sizes):
    for number in sizes:
        for _ in fewer(subject, number).batches():
            pass
    return Section("passes", "", "")


def test_each_batch_of_each_pass_is_told_of_when_it_is_done():
    seen: list[Step] = []
    images = torch.rand(3, 1, 512, 512)  # one a batch

    def nothing(subject):
        assert seen == [Step("nothing", 1, 2)], "a section is told of before it is asked"
        return Section("nothing", "", "")

    audit(subject(images, one_expert), (nothing, partial(passes, sizes=(3, 2))), seen.append)
    assert seen[1:] == [
        Step("passes", 2, 2),
        *(Step("passes", 2, 2, done, 3) for done in (1, 2, 3)),
        *(Step("passes", 2, 2, done, 2) for done in (1, 2)),
    ]
