"""Nights of many scenes in which something goes wrong: it stays with the scene that it befalls."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from geomoe.pipeline import Night, Outcome, Request, forecast_many, predict_many
from geomoe.pipeline.batch import crew, worker
from geomoe.pipeline.batch.crew import Turns
from tests.pipeline.fakes import of, scene_task
from tests.products import write_safe, zipped
from tests.scenes import left_over, write_scene


def _until(thread: threading.Thread, done: Callable[[], bool]) -> None:
    while thread.is_alive() and not done():
        time.sleep(0.01)


def _begun(journal: Path) -> Callable[[], bool]:
    return lambda: journal.exists() and journal.stat().st_size > 100


@pytest.mark.slow
def test_a_scene_that_hangs_does_not_stop_the_others(
    tmp_path: Path, settings: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not even hear that it is asked to end."""
    monkeypatch.setattr(worker, "_GRACE", 0.2)
    (tmp_path / "out").mkdir()
    hanging, other = scene_task(tmp_path, "a", side=700), scene_task(tmp_path, "b")
    found: list[Outcome] = []

    def work() -> None:
        found.extend(predict_many(of([hanging, other], settings), processes=1, limit=6.0, retries=0))

    thread = threading.Thread(target=work)
    thread.start()
    _until(thread, _begun(tmp_path / "out" / ".a.tif.geomoe" / "journal"))
    (child,) = multiprocessing.active_children()
    os.kill(child.pid or 0, signal.SIGSTOP)
    thread.join()
    assert [outcome.status for outcome in found] == ["failed", "done"]
    assert found[0].message.startswith("it took more than 6 s (--scene-timeout); ")
    assert found[0].message.endswith(" of its 1936 tiles are kept, the same command resumes it")
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_nor_does_it_stop_a_cluster_which_tells_of_every_tile(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    hanging, other = scene_task(tmp_path, "a", side=700), scene_task(tmp_path, "b")
    night = Night(2)
    found: list[Outcome] = []

    def work() -> None:
        tasks = [hanging, other]
        found.extend(
            predict_many(
                of(tasks, settings), processes=1, scheduler="local", limit=6.0, retries=0, night=night
            )
        )

    thread = threading.Thread(target=work)
    thread.start()
    _until(thread, _begun(tmp_path / "out" / ".a.tif.geomoe" / "journal"))
    for child in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.suspend()
    thread.join()
    assert [(outcome.status, outcome.attempts) for outcome in found] == [("failed", 1), ("done", 1)]
    assert found[0].message.startswith("it took more than 6 s (--scene-timeout)")
    assert (night.scenes_ended, night.tiles_done >= 9) == (2, True)


@pytest.mark.slow
def test_of_a_scene_that_hung_before_its_first_tile_nothing_is_left(
    tmp_path: Path, settings: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_GRACE", 0.2)
    (tmp_path / "out").mkdir()
    task = scene_task(tmp_path, "a", side=2000)
    folder = tmp_path / "out" / ".a.tif.geomoe"
    found: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: found.extend(predict_many(of([task], settings), processes=1, limit=6.0, retries=0))
    )
    thread.start()
    _until(thread, folder.exists)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid or 0, signal.SIGSTOP)
    (folder / "journal").unlink(missing_ok=True)  # as if it had been stopped a moment earlier
    thread.join()
    assert [outcome.status for outcome in found] == ["failed"]
    assert left_over(tmp_path / "out") == []


@pytest.mark.slow
def test_one_manifest_twice_at_once_ends_well_twice(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    tasks = [scene_task(tmp_path, name, side=200) for name in "abc"]
    found: list[list[Outcome]] = []
    nights = [
        threading.Thread(
            target=lambda: found.append(predict_many(of(tasks, settings), processes=1, retries=0))
        )
        for _ in range(2)
    ]
    for night in nights:
        night.start()
    for night in nights:
        night.join()
    statuses = [[outcome.status for outcome in outcomes] for outcomes in found]
    assert all(sorted(pair) == ["done", "there"] for pair in zip(*statuses, strict=True)), statuses


def test_a_scene_that_others_are_at_is_waited_for_while_they_show_signs_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(crew.time, "monotonic", lambda: now[0])
    order, task = Turns(2, retries=1), Request("a", "b")
    first, second = order.next(), order.next()
    assert first is not None
    assert second is not None
    assert [first.number, second.number] == [0, 1]
    assert order.again(second, Outcome(task, "failed"))
    for sign in range(5):
        assert order.again(first, Outcome(task, "busy", sign=sign))
        last = order.next()
        assert last is None or last.number == 1, "the others first"
        assert 0 < order.pause <= 1
        now[0] += crew.PATIENCE - 1
        first = order.next()
        assert first is not None
    assert order.again(first, Outcome(task, "busy", sign=4)), "since when it stands still is not known yet"
    now[0] += crew.PATIENCE + 1
    first = order.next()
    assert first is not None
    assert first.attempt == 1
    assert not order.again(first, Outcome(task, "busy", sign=4))
    assert len(order) == 0


def test_empty_scenes_are_no_failure_and_foreseen(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    write_scene(tmp_path / "e.tif", np.zeros((3, 40, 40), np.uint16), nodata=0)
    empty = Request(str(tmp_path / "e.tif"), str(tmp_path / "out" / "e.tif"))
    tasks = [empty, scene_task(tmp_path, "a")]
    told = forecast_many(of(tasks, settings))
    assert [outcome.request.dst for outcome in told.empty] == [empty.dst]
    assert (told.scenes, told.refused) == (1, ())
    found = predict_many(of(tasks, settings), processes=1)
    assert [(outcome.status, outcome.attempts) for outcome in found] == [("empty", 1), ("done", 1)]
    assert "no valid pixel" in found[0].message
    assert left_over(tmp_path / "out")[:2] == ["a.stac.json", "a.tif"]
    assert len(left_over(tmp_path / "out")) == 3, "and the model's item"


def test_a_night_knows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr("geomoe.pipeline.progress.time.monotonic", lambda: now[0])
    shown: list[int] = []
    night = Night(4, lambda night: shown.append(night.tiles_done))
    assert (night.tiles, night.seconds_left) == (0, None)
    night.opened(0, 10, 4)
    night.opened(1, 30, 0)
    assert (night.tiles_done, night.tiles, night.estimated) == (4, 80, True), "20 each, as far as is known"
    now[0] += 10
    night.advance(0)
    night.advance(1)
    assert shown == [4, 4, 5, 6]
    assert night.seconds_left == pytest.approx(10 / 2 * 74), "what was done before says nothing of the pace"
    night.ended(2)  # there already
    assert night.tiles == 60
    night.ended(1)  # failed: its other 29 tiles are not waited for
    assert (night.tiles_done, night.scenes_ended) == (6, 2)
    night.opened(3, 5, 0)
    assert (night.tiles, night.estimated) == (16, False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_night_leaves_nothing_unpacked(tmp_path: Path, settings: Request, number: int) -> None:
    """Whatever its processes are at; work that is begun is kept."""
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    product = zipped(write_safe(tmp_path), tmp_path / "s.zip")
    lines = [f"{product},{tmp_path}/out/{i}.tif,B04" for i in range(40)]
    (tmp_path / "m.csv").write_text("\n".join(["src,dst,bands", *lines]))
    night = subprocess.Popen(
        [sys.executable, "-m", "geomoe.cli.main", "upscale", "--manifest", tmp_path / "m.csv", "--scale", "2",
         "--model", settings.model, "--tile", "8", "--processes", "2"],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, start_new_session=True,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not list((tmp_path / "tmp").glob("*/*/*/*.jp2")):
        assert night.poll() is None
        time.sleep(0.005)
    os.killpg(night.pid, number)  # as a terminal or a batch system does: all of them
    said = night.communicate(timeout=60)[1]
    assert night.returncode == 128 + number
    ended = "interrupted" if number == signal.SIGINT else "terminated"
    assert re.fullmatch(
        rf"geomoe: {ended}; \d+ of 40 scenes have ended, \d+ tiles are done and kept; "
        "the same command resumes it",
        said.splitlines()[-1],
    )
    assert "Traceback" not in said
    assert left_over(tmp_path / "tmp") == []
