"""Many scenes: in which order they are tried, which of them again, and what is told of them.

Who does them is an `Engine`: processes of this machine, or the workers of a cluster.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from geomoe.pipeline.batch.report import Outcome
from geomoe.pipeline.batch.scene import tidy
from geomoe.pipeline.progress import Night
from geomoe.pipeline.request import Request

__all__ = ["PATIENCE", "Advanced", "Begun", "Crew", "Engine", "Event", "Opened", "Turn", "Turns"]

PATIENCE = 600.0
"""Seconds to wait for a sign of life of whoever works on a scene; to read back a large file takes minutes."""
_PAUSE = 1.0
"""Seconds until a scene that another process is at is looked at again."""
_TICK = 1.0
"""Seconds after which a listener is told that time passes."""


class Begun(NamedTuple):
    """A process, whose address this is, has its imports behind it and begins a scene."""

    address: str = ""


class Opened(NamedTuple):
    """A scene has so many tiles, of which some are done."""

    total: int
    done: int


class Advanced(NamedTuple):
    """One more tile is done."""


Event = Begun | Opened | Advanced | Outcome
"""What is heard of a scene."""


class Engine(Protocol):
    """Those who do scenes."""

    starting: float
    """Seconds from `submit` until a scene begins, at most."""

    @property
    def free(self) -> bool:
        """Whether it takes one more scene."""

    def submit(self, number: int, request: Request) -> None:
        """Have a scene done."""

    def events(self, seconds: float) -> Iterable[tuple[int, Event]]:
        """What has happened, by the number of the scene; waits so long at most where nothing has."""

    def stop(self, number: int) -> None:
        """End whoever works on a scene; nothing more is heard of it."""


class Crew:
    """Scenes, and what has become of them so far.

    Args:
        requests: the scenes.
        retries: how often one that failed is tried again.
        limit: seconds that one may take; infinite where it may take any.
        heard: called with what became of each.
        night: called for every tile.

    Attributes:
        found: what became of scenes that nothing more is done on, by their numbers.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        retries: int,
        limit: float,
        heard: Callable[[Outcome], None],
        night: Night,
    ) -> None:
        self.requests, self.found = requests, dict[int, Outcome]()
        self._limit, self._heard, self._night = limit, heard, night
        self._turns = Turns(len(requests), retries)
        self._running: dict[int, tuple[Turn, float]] = {}  # with the time at which it must have ended

    @property
    def outcomes(self) -> list[Outcome]:
        """In the order of the requests, when all is done."""
        return [self.found[number] for number in range(len(self.requests))]

    @property
    def so_far(self) -> str:
        """How far it is, for who ends it."""
        tiles = self._night.tiles_done
        return (
            f"{len(self.found)} of {len(self.requests)} scenes have ended, {tiles} tiles are done and kept; "
            "the same command resumes it"
        )

    def work(self, engine: Engine) -> None:
        """Have all done that is not; after an engine that failed, another one continues."""
        for left, _ in self._running.values():
            self._turns.put(left)
        self._running.clear()
        while self._turns or self._running:
            while engine.free and (turn := self._turns.next()) is not None:
                self._running[turn.number] = turn, time.monotonic() + engine.starting + self._limit
                engine.submit(turn.number, self.requests[turn.number])
            for number, event in engine.events(min(_TICK, self._turns.pause) if engine.free else _TICK):
                if number in self._running:
                    self._hear(number, event)
            now = time.monotonic()
            for number in [number for number, (_, deadline) in self._running.items() if deadline <= now]:
                engine.stop(number)
                tidy(self.requests[number])
                late = f"it took more than {self._limit:.0f} s (--scene-timeout){self._night.so_far(number)}"
                self._end(number, Outcome(self.requests[number], "failed", self._limit, message=late))
            self._night.tick()

    def _hear(self, number: int, event: Event) -> None:
        match event:
            case Begun():
                self._running[number] = self._running[number][0], time.monotonic() + self._limit
            case Opened(total, done):
                self._night.opened(number, total, done)
            case Advanced():
                self._night.advance(number)
            case Outcome():
                self._end(number, event)

    def _end(self, number: int, outcome: Outcome) -> None:
        turn, _ = self._running.pop(number)
        if self._turns.again(turn, outcome):
            return
        self.found[number] = replace(outcome, request=self.requests[number], attempts=turn.attempt)
        self._night.ended(number)
        with suppress(OSError):  # of a terminal that is gone
            self._heard(self.found[number])


@dataclass(frozen=True)
class Turn:
    """One try of a scene.

    Attributes:
        number: of the scene.
        attempt: which one it is, from 1 on.
        due: not before this time (of `time.monotonic`).
        sign: the last sign of life of the process that was working on it, if one was.
        since: when that sign was first seen.
    """

    number: int
    attempt: int = 1
    due: float = 0.0
    sign: int = 0
    since: float = 0.0


class Turns:
    """Scenes that are to be tried: those that failed after the others, those that others work on last.

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

    def put(self, turn: Turn) -> None:
        """Try a scene once more as if it had not been tried."""
        self._waiting.append(turn)

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
