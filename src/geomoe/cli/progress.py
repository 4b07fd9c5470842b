"""Progress on the terminal: a bar for people, plain lines for logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geomoe.cli.say import say
from geomoe.cli.units import in_time

if TYPE_CHECKING:
    from geomoe.audit.run import Step
    from geomoe.pipeline import Night

__all__ = [
    "AuditBar", "AuditLines", "Bar", "Lines", "NightBar", "NightLines", "audit_progress", "night_progress",
    "terminal_progress", "told",
]  # fmt: skip


class Bar:
    """A bar with an estimate of the time left."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def start(self, total: int, done: int = 0, note: str = "") -> None:
        """Show the bar; ``total`` units are to be done, or were."""
        if note:
            say(note, err=True)
        self._bar.start()
        self._task = self._bar.add_task(self._label, total=total, completed=done)

    def advance(self) -> None:
        """One unit is done."""
        self._bar.advance(self._task)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


class Lines:
    """One line at every tenth of the work, and once a minute; no more than one a second."""

    def __init__(self, label: str) -> None:
        self._label = label

    def start(self, total: int, done: int = 0, note: str = "") -> None:
        """``total`` units are to be done, or were."""
        if note:
            say(note, err=True)
        self._total, self._done, self._before = total, done, done
        self._began = self._last = time.monotonic()

    def advance(self) -> None:
        """One unit is done."""
        self._done += 1
        now = time.monotonic()
        tenth = self._done * 10 // self._total > (self._done - 1) * 10 // self._total
        if self._done == self._total or now - self._last >= (1 if tenth else _MINUTE):
            self._last = now
            left = (now - self._began) / (self._done - self._before) * (self._total - self._done)
            ending = f", {in_time(left)} left" if left else ""
            say(f"{self._label} {self._done}/{self._total}{ending}", err=True)

    def close(self) -> None:
        """Nothing to tidy."""


class NightBar:
    """A bar over the tiles of many scenes."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[tiles]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("scenes", total=None, tiles="", left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, night: Night) -> None:
        """Show how far it is."""
        scenes, tiles, left = _words(night)
        self._bar.update(
            self._task, description=scenes, total=night.tiles or None, completed=night.tiles_done,
            tiles=tiles, left=left,
        )  # fmt: skip


class NightLines:
    """A line ten seconds after the beginning, then one a minute, and one at the end."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _FIRST

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, night: Night) -> None:
        """Write how far it is, if it is time to."""
        now, ended = time.monotonic(), night.scenes_ended == night.scenes
        if now >= self._due or (ended and self._due < float("inf")):
            self._due = float("inf") if ended else now + _MINUTE
            say(", ".join(filter(None, _words(night))), err=True)


class AuditBar:
    """A bar over the samples of a section; each pass over them begins anew."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("samples"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("sections", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, step: Step) -> None:
        """Show how far it is."""
        self._bar.update(
            self._task, description=_section(step), total=step.samples or None, completed=step.done
        )


class AuditLines:
    """A line at the beginning of each section, and one a minute."""

    def __init__(self) -> None:
        self._due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, step: Step) -> None:
        """Write how far it is, if it is time to."""
        now = time.monotonic()
        if not step.samples or now >= self._due:
            self._due = now + _MINUTE
            done = f", samples {step.done}/{step.samples}" if step.samples else ""
            say(f"{_section(step)}{done}", err=True)


_FIRST, _MINUTE = 10.0, 60.0


def _section(step: Step) -> str:
    return f"section {step.number}/{step.sections}, {step.section}"


def _words(night: Night) -> tuple[str, str, str]:
    """Scenes, tiles, and the time that is left."""
    about = "about " if night.estimated else ""
    tiles = f"tiles {night.tiles_done}/{about}{night.tiles}" if night.tiles else ""
    left = f"{about}{in_time(night.seconds_left)} left" if night.seconds_left else ""
    return f"scenes {night.scenes_ended}/{night.scenes}", tiles, left


def night_progress() -> NightBar | NightLines:
    """A bar where standard error is a terminal, else lines."""
    return NightBar() if sys.stderr.isatty() else NightLines()


def audit_progress() -> AuditBar | AuditLines:
    """A bar where standard error is a terminal, else lines."""
    return AuditBar() if sys.stderr.isatty() else AuditLines()


def terminal_progress(label: str) -> Bar | Lines:
    """A bar where standard error is a terminal, else lines."""
    return Bar(label) if sys.stderr.isatty() else Lines(label)


@contextmanager
def told(label: str) -> Iterator[Callable[[int, int], None]]:
    """A callback that takes units done and units in all, shown as :func:`terminal_progress`."""
    bar = terminal_progress(label)
    started = False

    def callback(done: int, total: int) -> None:
        nonlocal started
        if not started:
            bar.start(total)
            started = True
        bar.advance()

    try:
        yield callback
    finally:
        if started:
            bar.close()
