"""Whether the offsets that a catalogue lists are still to be added to values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["offsets_due"]

_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINE = ("s2:processing_baseline", "sentinel:processing_baseline")
_BASELINE_FORM = re.compile(r"\d\d\.\d\d", re.ASCII)


def offsets_due(listed: Collection[float], properties: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether listed offsets are still due, and what was decided about them, a sentence.

    Catalogues list -0.1 for all of Sentinel-2, and say elsewhere whether values have it already.

    Args:
        listed: by an item, of all its bands.
        properties: of the item.
    """
    offsets = sorted(filter(None, listed))
    if not offsets:
        return True, ()
    applied = next((properties[key] for key in _APPLIED if isinstance(properties.get(key), bool)), None)
    baseline = next((str(properties[key]) for key in _BASELINE if key in properties), "")
    without = _BASELINE_FORM.fullmatch(baseline) is not None and baseline < "04.00"
    if applied or without:
        why = "it says that they were applied before"
        if not applied:
            why = f"processing baseline {baseline} has none"
        return False, (f"the offsets that the item lists are not used, as {why}",)
    says = ""
    if applied is False:
        says = " and says that it was not applied before"
    elif _sentinel2(properties):
        says = f" and does not say whether it was applied before ({_APPLIED[0]})"
    several = ", ".join(f"{offset:g}" for offset in offsets[:8])
    return True, (f"offset {several} is declared, as the item lists it{says}",)


def _sentinel2(properties: Mapping[str, Any]) -> bool:
    named = any(key.startswith(("s2:", "sentinel:", "earthsearch:")) for key in properties)
    said = [str(properties.get(key)).lower() for key in ("constellation", "platform")]
    return named or any("sentinel-2" in text for text in said)
