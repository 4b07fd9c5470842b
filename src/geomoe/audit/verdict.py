"""The one sentence that stands at the top."""

from __future__ import annotations

from collections.abc import Sequence

from geomoe.audit.section import Finding, Level, Section

__all__ = ["verdict"]


def verdict(sections: Sequence[Section]) -> Finding:
    """What all findings come to: the first of the worst level."""
    found = [finding for section in sections for finding in section.findings]
    levels: tuple[Level, ...] = ("fault", "warning", "sound")
    for level in levels:
        for finding in found:
            if finding.level == level:
                return finding
    return Finding("note", "nothing_checked", "Nothing was checked.")
