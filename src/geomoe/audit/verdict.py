"""The one sentence that stands at the top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from geomoe.audit.section import Finding, Level, Section
from geomoe.audit.worth import WORTH

__all__ = ["verdict"]

_FIRST = (
    "no_routing",
    "untrained_router",
    "constant_plan",
    "not_better_than_shuffled",
    "choice_does_not_matter",
)
"""Faults of the routing itself: with one of these other findings say little."""
_RISING: tuple[Level, ...] = ("note", "sound", "warning", "fault")
_NOTHING = "nothing_checked"
_SOUND = ("routing_matters",)
"""What is told first of what is sound."""


def verdict(sections: Sequence[Section]) -> Finding:
    """What all findings come to, in one sentence.

    A fault of the routing itself decides, then any other fault; a model whose routing matters is told to be
    sound, with its warnings; where nothing was asked that decides, the worst of what was found is told.
    Whether the mixture beats its dense twin is told with it where a benchmark says so: a model that only
    depends on its routing is no better for it, and so not sound.

    Args:
        sections: that were asked, in any order.

    Returns:
        A finding whose code is that of the one that decided.
    """
    found = [finding for section in sections for finding in section.findings]
    worth = next((finding for finding in found if finding.code in WORTH), None)
    decided, more = _decided([finding for finding in found if finding.code not in WORTH])
    if worth is None:
        return _with(decided, more)
    if decided.code == _NOTHING:
        return worth
    level = max(decided.level, worth.level, key=_RISING.index)
    clause = f"{worth.text[0].lower()}{worth.text[1:].removesuffix('.')}"
    return _with(replace(decided, level=level), clause, more)


def _decided(found: Sequence[Finding]) -> tuple[Finding, str]:
    """The finding that decides, and a clause on the others; may be empty."""
    faults = [finding for finding in found if finding.level == "fault"]
    first = sorted(faults, key=lambda f: _FIRST.index(f.code) if f.code in _FIRST else len(_FIRST))
    if first:
        others = len({finding.code for finding in faults}) - 1
        several = f"{others} other faults were found" if others > 1 else "one other fault was found"
        return first[0], several if others else ""
    warnings = [finding for finding in found if finding.level == "warning"]
    sound = [finding for finding in found if finding.level == "sound"]
    matters = next((finding for finding in sound if finding.code in _SOUND), None)
    if matters is not None:
        several = f"there are {len(warnings)} warnings" if len(warnings) > 1 else "there is one warning"
        return matters, several if warnings else ""
    for some in (warnings, sound):
        if some:
            return some[0], ""
    return Finding("note", _NOTHING, "Nothing was checked."), ""


def _with(finding: Finding, *clauses: str) -> Finding:
    """The finding with more clauses in its sentence."""
    parts = [finding.text.removesuffix("."), *filter(None, clauses)]
    return replace(finding, text=f"{'; '.join(parts)}.")
