"""When a scene was taken."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["YEARS", "in_utc"]

YEARS = (1858, 2261)
"""In which a scene may have been taken: from the first photograph from the air, to the last whole year that
nanoseconds in 64 bits can tell, as pandas and Arrow count time."""


def in_utc(text: str) -> str | None:
    """A time of ISO 8601 as RFC 3339 writes it in UTC, which is also what a time without a zone is taken for.

    ``None`` for any other text, and for years in which no image of the Earth from above is taken.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    if not YEARS[0] <= time.year <= YEARS[1]:
        return None
    return time.isoformat().replace("+00:00", "Z")
