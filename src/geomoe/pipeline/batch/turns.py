"""In which order scenes are tried, and which of them again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from geomoe.pipeline.batch.manifest import Outcome, SceneTask
from geomoe.pipeline.progress import Night

__all__ = ["PATIENCE", "Asked", "Turn", "Turns"]

PATIENCE = 600.0
"""Seconds to wait for a sign of life of whoever is at a scene; to read back a large file takes minutes."""
_PAUSE = 1.0
"""Seconds until a scene that another process is at is looked at again."""


@dataclass(frozen=True)
class Asked:
    """What is asked of those who do many scenes; the arguments of `upscale_many`.

    Attributes:
        tasks: the scenes.
        retries: how often one that failed is tried again.
        limit: seconds that one may take; infinite where it may take any.
        heard: is told what became of each.
        night: is told of every tile.
    """

    tasks: Sequence[SceneTask]
    retries: int
    limit: float
    heard: Callable[[Outcome], None]
    night: Night

    def late(self, number: int) -> str:
        """What to say of a scene that took longer than it may."""
        return f"it took more than {self.limit:.0f} s (--scene-timeout){self.night.so_far(number)}"


@dataclass(frozen=True)
class Turn:
    """One try of a scene.

    Attributes:
        number: of the scene.
        attempt: which one it is, from 1 on.
        due: not before this time (of `time.monotonic`).
        sign: the last sign of life of the process that was at it, if one was.
        since: when that sign was first seen.
    """

    number: int
    attempt: int = 1
    due: float = 0.0
    sign: int = 0
    since: float = 0.0


class Turns:
    """Scenes that are to be tried: those that failed after the others, those that others are at last.

    Args:
        count: of the scenes.
        retries: how often one that failed is tried again.
    """

    def __init__(self, count: int, retries: int) -> None:
        self._waiting = deque(Turn(number) for number in range(count))
        self._retries = retries

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def pause(self) -> float:
        """Seconds until the next is due; infinite where none is left."""
        return max(0.0, min((turn.due for turn in self._waiting), default=float("inf")) - time.monotonic())

    def next(self) -> Turn | None:
        """The next one that is due, which is taken off; ``None`` where none is."""
        now = time.monotonic()
        found = next((turn for turn in self._waiting if turn.due <= now), None)
        if found is not None:
            self._waiting.remove(found)
        return found

    def wait(self) -> Turn:
        """The next one, when it is due; there must be one."""
        while (turn := self.next()) is None:
            time.sleep(self.pause)
        return turn

    def again(self, turn: Turn, outcome: Outcome) -> bool:
        """Whether a scene is to be tried again, by what became of it; it is put back then."""
        now = time.monotonic()
        if outcome.status == "failed" and turn.attempt <= self._retries:
            self._waiting.append(Turn(turn.number, turn.attempt + 1))
            return True
        if outcome.status == "busy":
            since = turn.since if turn.since and turn.sign == outcome.sign else now
            if now - since < PATIENCE:
                self._waiting.append(replace(turn, due=now + _PAUSE, sign=outcome.sign, since=since))
                return True
        return False
