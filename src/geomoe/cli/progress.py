"""Progress on the terminal: a bar for people, plain lines for logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Bar", "Lines", "terminal_progress", "told"]


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
            click.echo(note, err=True)
        self._bar.start()
        self._task = self._bar.add_task(self._label, total=total, completed=done)

    def advance(self) -> None:
        """One unit is done."""
        self._bar.advance(self._task)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


class Lines:
    """One line at every tenth of the work, and no more than one a second."""

    def __init__(self, label: str) -> None:
        self._label = label

    def start(self, total: int, done: int = 0, note: str = "") -> None:
        """``total`` units are to be done, or were."""
        if note:
            click.echo(note, err=True)
        self._total, self._done, self._before = total, done, done
        self._began = self._last = time.monotonic()

    def advance(self) -> None:
        """One unit is done."""
        self._done += 1
        now = time.monotonic()
        tenth = self._done * 10 // self._total > (self._done - 1) * 10 // self._total
        if self._done == self._total or (tenth and now - self._last >= 1):
            self._last = now
            left = (now - self._began) / (self._done - self._before) * (self._total - self._done)
            click.echo(f"{self._label} {self._done}/{self._total}, {left:.0f} s left", err=True)

    def close(self) -> None:
        """Nothing to tidy."""


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
