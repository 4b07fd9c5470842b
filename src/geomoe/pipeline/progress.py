"""How far a job is, told to whoever listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Hears about every tile."""

    def start(self, total: int) -> None:
        """The work begins; it has ``total`` tiles."""

    def advance(self) -> None:
        """One more tile is done."""

    def close(self) -> None:
        """The work has ended, well or not. Called once."""


class Silent:
    """A `Progress` that tells nobody."""

    def start(self, total: int) -> None:
        """Ignore it."""

    def advance(self) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Ignore it."""
