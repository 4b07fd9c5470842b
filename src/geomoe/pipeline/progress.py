"""How far a job is, told to whoever listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Hears about every tile."""

    def start(self, total: int, done: int, note: str) -> None:
        """The work begins; it has ``total`` tiles, of which ``done`` are done.

        ``note`` says what was found of an earlier process's work; it is empty if nothing was.
        """

    def advance(self) -> None:
        """One more tile is done."""

    def close(self) -> None:
        """The work has ended, well or not. Called once."""


class Silent:
    """A `Progress` that tells nobody."""

    def start(self, total: int, done: int, note: str) -> None:
        """Ignore it."""

    def advance(self) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Ignore it."""
