"""One sentence at the top: a fault of the routing decides, then other faults, then that routing matters."""

import pytest

from geomoe.audit.section import Finding, Section
from geomoe.audit.verdict import verdict


def said(*findings):
    return verdict([Section("s", "S?", "", (Finding(level, code, f"{code}."),)) for level, code in findings])


@pytest.mark.parametrize(
    ("findings", "level", "text"),
    [
        ((), "note", "Nothing was checked."),
        ((("sound", "experts_used"),), "sound", "experts_used."),
        ((("sound", "experts_used"), ("sound", "routing_matters")), "sound", "routing_matters."),
        (
            (("warning", "dead_expert"), ("sound", "routing_matters")),
            "sound",
            "routing_matters; there is one warning.",
        ),
        (
            (("warning", "a"), ("warning", "b"), ("sound", "routing_matters")),
            "sound",
            "routing_matters; there are 2 warnings.",
        ),
        ((("sound", "experts_used"), ("warning", "dead_expert")), "warning", "dead_expert."),
        ((("sound", "routing_matters"), ("fault", "noise_at_evaluation")), "fault", "noise_at_evaluation."),
        (
            (("fault", "noise_at_evaluation"), ("fault", "not_better_than_shuffled")),
            "fault",
            "not_better_than_shuffled; one other fault was found.",
        ),
        (
            (("fault", "not_better_than_shuffled"), ("fault", "noise"), ("fault", "untrained_router")),
            "fault",
            "untrained_router; 2 other faults were found.",
        ),
        (
            (("sound", "beats_twin"), ("sound", "routing_matters"), ("warning", "dead_expert")),
            "sound",
            "routing_matters; beats_twin; there is one warning.",
        ),
        (
            (("warning", "twin_is_better"), ("note", "twin_is_better"), ("sound", "routing_matters")),
            "warning",
            "routing_matters; twin_is_better.",
        ),
        (
            (("sound", "beats_twin"), ("fault", "constant_plan")),
            "fault",
            "constant_plan; beats_twin.",
        ),
        ((("warning", "not_shown_to_beat_twin"),), "warning", "not_shown_to_beat_twin."),
        ((("sound", "beats_twin"), ("warning", "dead_expert")), "warning", "dead_expert; beats_twin."),
    ],
)
def test_what_findings_come_to(findings, level, text):
    found = said(*findings)
    assert (found.level, found.text) == (level, text)
