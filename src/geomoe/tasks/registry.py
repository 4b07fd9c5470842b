"""The registry of tasks: what a card names, and what trains and scores it."""

from __future__ import annotations

from dataclasses import dataclass

from geomoe.errors import GeomoeError
from geomoe.tasks.stream import StreamData
from geomoe.tasks.task import Task

__all__ = ["FAMILIES", "Family", "family", "register"]


@dataclass(frozen=True)
class Family:
    """A task and the data module that goes with it."""

    task: type[Task]
    data: type[StreamData]


FAMILIES: dict[str, Family] = {}
"""By the name on cards."""


def register(task: type[Task], data: type[StreamData]) -> None:
    """Add a family: ``geomoe fit`` may then name its classes, and ``geomoe evaluate`` score its weights."""
    FAMILIES[task.family] = Family(task, data)


def family(name: str) -> Family:
    """The family called ``name``; raises GeomoeError for an unknown one."""
    if name not in FAMILIES:
        raise GeomoeError(f"no task is called {name!r}; there are: {', '.join(FAMILIES)}")
    return FAMILIES[name]
