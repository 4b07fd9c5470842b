"""How far a job is, or a night of them, told to whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

__all__ = ["Night", "Progress", "Silent"]


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
    """A `Progress` that reports nothing."""

    def start(self, total: int, done: int, note: str) -> None:
        """Ignore it."""

    def advance(self) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Ignore it."""


class Night:
    """How far many scenes are, by their tiles.

    A scene that was not opened yet is taken to have as many tiles as those that were have on average.

    Args:
        scenes: how many.
        shown: called with this whenever something has changed, and about once a second in between.
    """

    def __init__(self, scenes: int, shown: Callable[[Night], None] = lambda night: None) -> None:
        self.scenes, self._shown = scenes, shown
        self._tiles: dict[int, tuple[int, int]] = {}  # of each scene that was opened: done, and in all
        self._ended: set[int] = set()
        self._ran = 0
        self._began: float | None = None

    @property
    def scenes_ended(self) -> int:
        """Scenes that nothing more is done on."""
        return len(self._ended)

    @property
    def tiles_done(self) -> int:
        """Tiles that are done, now or before."""
        return sum(done for done, _ in self._tiles.values())

    @property
    def tiles(self) -> int:
        """Tiles in all."""
        known = sum(total for _, total in self._tiles.values())
        unknown = self.scenes - len({*self._tiles, *self._ended})
        return known + round(known / len(self._tiles) * unknown) if self._tiles else 0

    @property
    def estimated(self) -> bool:
        """Whether `tiles` counts scenes that were not opened yet."""
        return len({*self._tiles, *self._ended}) < self.scenes

    @property
    def seconds_left(self) -> float | None:
        """Until all is done, at the pace of the tiles so far; ``None`` before the first."""
        if self._began is None or not self._ran:
            return None
        return (time.monotonic() - self._began) / self._ran * (self.tiles - self.tiles_done)

    def so_far(self, scene: int) -> str:
        """How far a scene is, to be added to a sentence; empty where it was not opened."""
        if scene not in self._tiles:
            return ""
        done, total = self._tiles[scene]
        return f"; {done} of its {total} tiles are kept, the same command resumes it" if done else ""

    def opened(self, scene: int, total: int, done: int) -> None:
        """A scene has ``total`` tiles, of which ``done`` were done before."""
        self._began = self._began or time.monotonic()
        self._tiles[scene] = (done, total)
        self.tick()

    def advance(self, scene: int) -> None:
        """One more tile of a scene is done."""
        done, total = self._tiles.get(scene, (0, 0))
        self._tiles[scene] = (done + 1, total)
        self._ran += 1
        self.tick()

    def ended(self, scene: int) -> None:
        """Nothing more is done on a scene."""
        self._ended.add(scene)
        if scene in self._tiles:
            done, _ = self._tiles[scene]
            self._tiles[scene] = (done, done)
        self.tick()

    def tick(self) -> None:
        """Time has gone by. A listener whose terminal is gone does not hinder the work."""
        with suppress(OSError):
            self._shown(self)
