"""What is told while work goes on, in a log."""

from __future__ import annotations

from typing import Any

import click
import pytest

from geomoe.audit.run import Step
from geomoe.cli.progress import AuditBar, AuditLines, Lines, NightLines
from geomoe.cli.units import Seconds
from geomoe.pipeline import Night


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_log_of_a_long_job_has_a_line_a_minute(capsys: Any, clock: list[float]) -> None:
    lines = Lines("tiles")
    lines.start(1000, 100)
    for _ in range(40):
        clock[0] += 9
        lines.advance()
    said = capsys.readouterr().err.splitlines()
    assert said == [f"tiles {done}/1000, 2.2 h left" for done in (107, 114, 121, 128, 135)]


def test_a_log_of_a_short_job_has_a_line_at_every_tenth(capsys: Any, clock: list[float]) -> None:
    lines = Lines("tiles")
    lines.start(20)
    for _ in range(20):
        clock[0] += 1
        lines.advance()
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == [f"tiles {n}/20" for n in range(2, 21, 2)]


def test_a_log_of_a_night_tells_tiles_and_the_time_that_is_left(capsys: Any, clock: list[float]) -> None:
    with NightLines() as shown:
        night = Night(3, shown)
        night.opened(0, 100, 0)
        for _ in range(50):
            clock[0] += 1
            night.advance(0)
        night.ended(0)
        for _ in range(100):  # nothing but time goes by
            clock[0] += 1
            night.tick()
        night.opened(1, 60, 0)
        night.ended(1)
        night.ended(2)
        night.tick()
    assert capsys.readouterr().err.splitlines() == [
        "scenes 0/3, tiles 10/about 300, about 5 min left",
        "scenes 1/3, tiles 50/about 150, about 2 min left",
        "scenes 1/3, tiles 50/about 150, about 4 min left",
        "scenes 3/3, tiles 50/50",
    ]


@pytest.mark.parametrize(("said", "seconds"), [("90s", 90), ("30min", 1800), ("1.5 h", 5400)])
def test_times(said: str, seconds: float) -> None:
    assert Seconds().convert(said, None, None) == seconds


@pytest.mark.parametrize("said", ["90", "0s", "-1h", "1d", "h", "1hour"])
def test_what_is_no_time(said: str) -> None:
    with pytest.raises(click.BadParameter, match="expected one such as 90s, 30min or 2h"):
        Seconds().convert(said, None, None)


def test_a_log_of_an_audit_has_a_line_for_each_section_and_one_a_minute(
    capsys: Any, clock: list[float]
) -> None:
    with AuditLines() as shown:
        shown(Step("quality", 1, 2))
        shown(Step("corruption", 2, 2))
        for done in range(1, 9):
            clock[0] += 25
            shown(Step("corruption", 2, 2, done, 8))
    assert capsys.readouterr().err.splitlines() == [
        "section 1/2, quality",
        "section 2/2, corruption",
        "section 2/2, corruption, samples 3/8",
        "section 2/2, corruption, samples 6/8",
    ]


def test_a_bar_of_an_audit_moves_within_a_section(capsys: Any) -> None:
    with AuditBar() as shown:
        shown(Step("corruption", 2, 2))
        shown(Step("corruption", 2, 2, 64, 100))
    assert "64/100" in capsys.readouterr().err
