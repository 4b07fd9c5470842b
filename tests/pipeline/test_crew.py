"""A crew of scenes, whoever does them: order, time that a scene may take, tries, and what is told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from geomoe.pipeline import Night, Outcome, Request
from geomoe.pipeline.batch import crew as crew_module
from geomoe.pipeline.batch import scenes as scenes_module
from geomoe.pipeline.batch.crew import Advanced, Begun, Crew, Event, Opened


class Scripted:
    """An engine of one place, which tells of each try of a scene what its script says; then time goes by."""

    starting = 10.0

    def __init__(self, clock: list[float], script: dict[int, list[list[Event]]]) -> None:
        self.clock, self.script = clock, script
        self.at: int | None = None
        self.tried: list[int] = []
        self.stopped: list[int] = []

    @property
    def free(self) -> bool:
        return self.at is None

    def submit(self, number: int, request: Request) -> None:
        self.at = number
        self.tried.append(number)

    def events(self, seconds: float) -> Iterable[tuple[int, Event]]:
        number, self.clock[0] = self.at, self.clock[0] + min(seconds, 1.0)
        if number is None or not self.script[number]:
            return
        for event in self.script[number].pop(0):
            if isinstance(event, Outcome):
                self.at = None
            yield number, event

    def stop(self, number: int) -> None:
        self.stopped.append(number)
        self.at = None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("geomoe.pipeline.batch.crew.time.monotonic", lambda: now[0])
    return now


def scenes(count: int) -> list[Request]:
    return [Request(f"{i}.tif", f"out{i}.tif") for i in range(count)]


def done(resumed: int = 0) -> Outcome:
    return Outcome(Request("", ""), "done", resumed=resumed)


FAILED = Outcome(Request("", ""), "failed", message="why")


def made(requests: list[Request], retries: int = 1, limit: float = 5.0) -> tuple[Crew, Night, list[Outcome]]:
    told: list[Outcome] = []
    night = Night(len(requests))
    return Crew(requests, retries, limit, told.append, night), night, told


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_scene_that_takes_too_long_is_tried_again_after_the_others(
    clock: list[float], retries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied: list[Request] = []
    monkeypatch.setattr(crew_module, "tidy", tidied.append)
    requests = scenes(2)
    crew, _, told = made(requests, retries)
    # The second try continues from where the first was stopped, and is done with it.
    engine = Scripted(clock, {0: [[Begun(), Opened(9, 0), Advanced()], *[[]] * 5, [done(1)]], 1: [[done()]]})
    crew.work(engine)
    assert engine.tried == ([0, 1, 0] if retries else [0, 1])
    assert engine.stopped == [0]
    assert tidied == requests[:1]
    found = crew.outcomes
    assert [outcome.status for outcome in found] == ["done" if retries else "failed", "done"]
    assert found[0].attempts == 1 + bool(retries)
    assert found[0].resumed == bool(retries)
    assert [outcome.request for outcome in found] == requests
    assert len(told) == 2
    if not retries:
        wanted = (
            "it took more than 5 s (--scene-timeout); 1 of its 9 tiles are kept, the same command resumes it"
        )
        assert found[0].message == wanted


def test_a_start_counts_apart_from_the_scene(clock: list[float]) -> None:
    crew, _, _ = made(scenes(1), retries=0)
    crew.work(engine := Scripted(clock, {0: [*[[]] * 12, [Begun()], [], [], [done()]]}))
    assert engine.stopped == []
    assert crew.outcomes[0].status == "done"


def test_what_fails_is_tried_as_often_as_asked(clock: list[float]) -> None:
    crew, night, told = made(scenes(2), retries=2)
    crew.work(engine := Scripted(clock, {0: [[FAILED], [FAILED], [FAILED]], 1: [[FAILED], [done()]]}))
    assert engine.tried == [0, 1, 0, 1, 0]
    assert [(outcome.status, outcome.attempts) for outcome in crew.outcomes] == [("failed", 3), ("done", 2)]
    assert [outcome.request.dst for outcome in told] == ["out1.tif", "out0.tif"]
    assert night.scenes_ended == 2


def test_an_engine_that_fails_is_followed_by_another(clock: list[float]) -> None:
    class Gone(Scripted):
        def events(self, seconds: float) -> Iterable[tuple[int, Event]]:
            if self.tried == [0, 1]:
                raise ConnectionError("gone")
            return super().events(seconds)

    crew, _, _ = made(scenes(3))
    with pytest.raises(ConnectionError, match="gone"):
        crew.work(Gone(clock, {0: [[done()]], 1: [[done()]]}))
    assert list(crew.found) == [0]
    crew.work(engine := Scripted(clock, {1: [[done()]], 2: [[done()]]}))
    assert sorted(engine.tried) == [1, 2]
    assert [outcome.attempts for outcome in crew.outcomes] == [1, 1, 1], "a connection that broke is no try"


def test_who_ends_a_night_is_told_how_far_it_is(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(Scripted):
        def __enter__(self) -> Ended:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def events(self, seconds: float) -> Iterable[tuple[int, Event]]:
            if self.at == 1:
                yield 1, Opened(9, 4)
                yield 1, Advanced()
                raise KeyboardInterrupt
            yield 0, Opened(3, 3)
            yield from super().events(seconds)

    monkeypatch.setattr(scenes_module, "pinned", lambda requests: [(request, "") for request in requests])
    monkeypatch.setattr(scenes_module, "Processes", lambda *_: Ended(clock, {0: [[done()]]}))
    with pytest.raises(KeyboardInterrupt) as caught:
        scenes_module.predict_many(scenes(2))
    wanted = "1 of 2 scenes have ended, 8 tiles are done and kept; the same command resumes it"
    assert caught.value.__notes__ == [wanted]
