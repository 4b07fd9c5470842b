"""What an audit found as JSON has it."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["json_text"]


def json_text(value: Any) -> str:
    """As JSON, which knows neither nan nor infinity: there is null."""
    return f"{json.dumps(_known(value), indent=2, ensure_ascii=False, allow_nan=False)}\n"


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_known(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
