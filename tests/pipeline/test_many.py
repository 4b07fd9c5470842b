"""Many scenes: one that fails does not stop the others."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.lock import locked
from geomoe.pipeline import (
    Outcome,
    Request,
    UnfinishedReport,
    check_report,
    forecast_many,
    forecast_scene,
    plan_scene,
    predict_many,
    read_manifest,
    upscale,
    write_report,
)
from geomoe.pipeline.batch import cluster, crew
from geomoe.pipeline.batch.scene import do_scene
from tests.pipeline.fakes import of, scene_task
from tests.scenes import left_over, pixels, write_scene


@pytest.mark.slow
def test_what_can_be_done_is_done_and_told(
    tmp_path: Path, settings: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PATIENCE", 0.0)
    (tmp_path / "out").mkdir()
    good, stands, busy, changed = (scene_task(tmp_path, name) for name in "abcd")
    write_scene(tmp_path / "out" / "b.tif", pixels(3, 8, 8, "uint8"))
    upscale(changed.src, changed.dst, model=settings.model, scale=2, tile=16)
    upscale(good.src, tmp_path / "alone.tif", model=settings.model, scale=2, tile=16)
    missing = Request(str(tmp_path / "none.tif"), str(tmp_path / "out" / "none.tif"))
    tasks = [good, stands, missing, busy, changed]
    told: list[Outcome] = []
    with locked(tmp_path / "out" / ".c.tif.geomoe", "busy"):
        found = predict_many(of(tasks, settings), processes=2, heard=told.append)
    assert [outcome.request for outcome in found] == of(tasks, settings)
    assert [outcome.status for outcome in found] == ["done", "failed", "failed", "busy", "there"]
    assert [outcome.attempts for outcome in found] == [1, 2, 2, 1, 1]
    assert "exists already" in found[1].message
    assert "does not exist" in found[2].message
    assert sorted(told, key=lambda o: found.index(o)) == found
    assert Path(good.dst).read_bytes() == (tmp_path / "alone.tif").read_bytes()

    time.sleep(0.01)
    write_scene(Path(changed.src), pixels(3, 40, 40, "uint16", seed=9))
    again = predict_many(of([good, busy, changed], settings), processes=1, retries=0)
    assert [outcome.status for outcome in again] == ["there", "done", "failed"], (
        "a newer scene is another job"
    )
    over = predict_many(of([changed, good], replace(settings, overwrite=True)), processes=1)
    assert [outcome.status for outcome in over] == ["done", "there"], "what is right need not be replaced"


@pytest.mark.slow
def test_a_file_that_lost_its_item_is_not_taken_for_made(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    task = scene_task(tmp_path, "a")
    predict_many(of([task], settings), processes=1)
    (tmp_path / "out" / "a.stac.json").unlink()
    (found,) = predict_many(of([task], settings), processes=1, retries=0)
    assert (found.status, "exists already" in found.message) == ("failed", True)


@pytest.mark.parametrize(
    "lines",
    ["a.tif,u.tif\nb.tif,u.tiff\n", "a.tif,x.tif\nx.stac.json,y.tif\n", "a.tif,x.tif,e.tif\nb.tif,e.tiff,\n"],
)
def test_a_manifest_in_which_one_line_would_harm_another(tmp_path: Path, lines: str) -> None:
    (tmp_path / "m.csv").write_text(("src,dst,experts\n" if ",e.tif" in lines else "src,dst\n") + lines)
    with pytest.raises(GeomoeError, match=r"is the (target|scene) of line"):
        read_manifest(tmp_path / "m.csv")


def test_a_report_does_not_cost_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("src,dst\n")
    with pytest.raises(GeomoeError, match="is the manifest"):
        check_report(tmp_path / "x" / ".." / "m.csv", tmp_path / "m.csv", [], "mfg_hmoe_light")


@pytest.mark.slow
def test_weights_may_be_named_from_here(
    tmp_path: Path, settings: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    task = scene_task(tmp_path, "a")
    found = predict_many(
        of([task], replace(settings, model="tiny.safetensors")), processes=1, scheduler="local"
    )
    assert [outcome.status for outcome in found] == ["done"]


def test_other_settings_are_another_job(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    task = scene_task(tmp_path, "a")
    upscale(task.src, task.dst, model=settings.model, scale=2, tile=16, bands="1,2")
    (found,) = predict_many(of([task], settings), retries=0)
    assert (found.status, "exists already" in found.message) == ("failed", True)


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced_and_its_scene_gone_on_with(
    tmp_path: Path, settings: Request
) -> None:
    (tmp_path / "out").mkdir()
    task = scene_task(tmp_path, "a", side=700)
    other = scene_task(tmp_path, "b")
    found: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: found.extend(predict_many(of([task, other], settings), processes=1))
    )
    thread.start()
    journal = tmp_path / "out" / ".a.tif.geomoe" / "journal"
    while thread.is_alive() and not (journal.exists() and journal.stat().st_size > 100):
        time.sleep(0.01)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid or 0, signal.SIGKILL)
    thread.join()
    assert [outcome.status for outcome in found] == ["done", "done"]
    assert found[0].attempts == 2
    assert found[0].resumed > 0
    upscale(task.src, tmp_path / "alone.tif", model=settings.model, scale=2, tile=16)
    assert Path(task.dst).read_bytes() == (tmp_path / "alone.tif").read_bytes()
    *made, model = left_over(tmp_path / "out")
    assert made == ["a.stac.json", "a.tif", "b.stac.json", "b.tif"]
    assert model.startswith("tiny.")


def test_manifests(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('\ufeffdst,src,bands\nout/a.tif, a.tif ,"B04,B03"\n/x/b.tif,http://b.tif,\n')
    assert read_manifest(path) == [
        Request(str(tmp_path / "a.tif"), str(tmp_path / "out" / "a.tif"), bands="B04,B03"),
        Request("http://b.tif", "/x/b.tif"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns ; expected src, dst"),
        ("a,b\n", "columns a, b; expected src, dst"),
        ("src,dst,model\n", "expected src, dst"),
        ("src,dst\n", "names no scene"),
        ("src,dst\na.tif,\n", "line 2: expected a value for src and dst"),
        ("src,dst\na.tif,b.tif,c.tif\n", "line 2: expected a value"),
        ("src,dst\na.tif,x.tif\nb.tif,./x.tif\n", "line 3: .* is the target of line 2"),
        ("src,dst,experts\na.tif,x.tif,y.tif\nb.tif,y.tif,\n", "line 3: .* is the target of line 2"),
        ("src,dst\na.tif,b.tif\0\n", "byte of zero|not a CSV"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(GeomoeError, match=said):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(GeomoeError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")


def test_a_report_has_a_line_for_everyscene_task(tmp_path: Path) -> None:
    outcomes = [
        Outcome(Request("a", "b"), "done", 1.25, 3, 1),
        Outcome(Request("c", "d"), "failed", 0.1, 0, 2, 'with, "quotes"'),
    ]
    write_report(tmp_path / "r.csv", outcomes)
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert rows[1]["message"] == 'with, "quotes"'
    assert rows[0]["tiles_resumed"] == "3"
    with pytest.raises(GeomoeError, match="cannot be written: No such file"):
        write_report(tmp_path / "none" / "r.csv", outcomes)


def test_a_report_is_there_while_work_goes_on(tmp_path: Path) -> None:
    tasks = [Request(name, f"{name}.tif") for name in ("a", "b", "\udcff")]

    def said(name: str) -> list[str]:
        with (tmp_path / name).open(newline="") as file:
            return [f"{row['src']} {row['status']}" for row in csv.DictReader(file)]

    report, later = (UnfinishedReport(tmp_path / f"{every}.csv", tasks, every=every) for every in (0, 3600))
    assert said("0.csv") == ["a waiting", "b waiting", "\\udcff waiting"], "from the first moment on"
    for one in (report, later):
        one.add(Outcome(tasks[1], "done"))
    assert said("0.csv") == ["a waiting", "b done", "\\udcff waiting"]
    assert said("3600.csv")[1] == "b waiting"
    later.write()
    assert said("3600.csv") == said("0.csv")
    UnfinishedReport(tmp_path / "none" / "r.csv", tasks, every=0).add(Outcome(tasks[0], "done"))


def _free(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    """So many bytes on every disk, by what estimates; what begins a job sees the true ones."""
    usage = SimpleNamespace(free=round(count))
    shutil = SimpleNamespace(disk_usage=lambda folder: usage)
    monkeypatch.setattr("geomoe.pipeline.batch.estimate.shutil", shutil)


def test_what_many_scenes_take_is_foretold(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    made, small, large = scene_task(tmp_path, "a"), scene_task(tmp_path, "b"), scene_task(tmp_path, "c", 200)
    upscale(made.src, made.dst, model=settings.model, scale=2, tile=16)
    before = left_over(tmp_path)
    missing = Request(str(tmp_path / "none.tif"), str(tmp_path / "out" / "none.tif"))
    heard: list[int] = []
    threads = torch.get_num_threads()
    told = forecast_many(of([made, small, missing, large], settings), heard=lambda: heard.append(1))
    assert torch.get_num_threads() == threads
    assert left_over(tmp_path) == before
    assert (told.scenes, told.there, len(told.refused), len(heard)) == (2, 1, 1, 4)
    assert told.refused[0].request.dst == missing.dst
    assert "none.tif" in told.refused[0].message
    assert told.passes == 3 * 3 + 13 * 13
    assert told.tried == 1, "nearly all the work is in one scene"
    alone = forecast_scene(large.src, large.dst, model=settings.model, scale=2, tile=16)
    assert told.output_bytes == pytest.approx(alone.output_bytes * (1 + 40**2 / 200**2), rel=0.1)
    assert told.seconds > 4
    assert not told.short
    predict_many(of([small], settings), processes=1)
    rest = forecast_many(of([made, small], settings))
    assert (rest.there, rest.passes, rest.seconds) == (2, 0, 0), "both are made by now"


def test_a_start_is_waited_for_once(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    told = forecast_many(of([scene_task(tmp_path, name, 20) for name in "abcdefghij"], settings), processes=1)
    assert 4 < told.seconds < 20


def test_maps_count_in_what_is_foretold(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    plain = scene_task(tmp_path, "a", 200)
    mapped = replace(plain, layers={"consistency": str(tmp_path / "out" / "map.tif")})
    image, both = (forecast_many(of([task], settings)).output_bytes for task in (plain, mapped))
    assert both > 1.1 * image


def test_a_damaged_scene_does_not_end_a_dry_run(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    good, bad = scene_task(tmp_path, "a"), scene_task(tmp_path, "b", 200)
    whole = Path(bad.src).read_bytes()
    Path(bad.src).write_bytes(whole[: len(whole) // 2])
    told = forecast_many(of([good, bad], settings))
    assert (told.scenes, told.tried) == (1, 1), "a smaller one is tried"
    assert [outcome.request.dst for outcome in told.refused] == [bad.dst]


def test_each_process_has_its_share_of_the_memory_in_a_dry_run(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    tasks = [scene_task(tmp_path, name) for name in "ab"]
    limited = replace(settings, memory=600 * 10**6)
    assert not forecast_many(of(tasks, limited), processes=1).refused
    told = forecast_many(of(tasks, limited), processes=2)
    assert len(told.refused) == 2
    assert "300.0 MB may be used" in told.refused[0].message


def test_a_disk_too_small_for_all_is_foretold(
    tmp_path: Path, settings: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    tasks = [scene_task(tmp_path, name, 200) for name in "abc"]
    plan = plan_scene(tasks[0].src, tasks[0].dst, model=settings.model, scale=2, tile=16)
    hand = plan.scratch_bytes + plan.output_bytes
    one = forecast_many(of(tasks[:1], settings)).output_bytes
    _free(monkeypatch, hand + 1.5 * one)
    ((folder, wanted, free),) = forecast_many(of(tasks, settings), processes=1).short
    assert folder == str(tmp_path / "out")
    assert wanted == pytest.approx(hand + 2 * one, rel=0.1)
    assert free == round(hand + 1.5 * one)
    assert not forecast_many(of(tasks[:2], settings), processes=1).short
    assert forecast_many(of(tasks[:2], settings), processes=2).short, "two scenes are at hand"
    for task in tasks:
        Path(task.dst).write_bytes(bytes(one))
    assert not forecast_many(of(tasks, replace(settings, overwrite=True)), processes=1).short, (
        "what is replaced makes room"
    )


def test_weights_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(GeomoeError, match="none"):
        predict_many([Request("a.tif", "b.tif", model=str(tmp_path / "none.safetensors"), scale=2)])


@pytest.mark.slow
def test_a_cluster_of_this_machine_does_the_same(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    tasks = [
        scene_task(tmp_path, "a"),
        Request(str(tmp_path / "none.tif"), str(tmp_path / "out" / "n.tif")),
    ]
    found = predict_many(of(tasks, settings), scheduler="local", processes=1)
    assert [(outcome.status, outcome.attempts) for outcome in found] == [("done", 1), ("failed", 2)]
    upscale(tasks[0].src, tmp_path / "alone.tif", model=settings.model, scale=2, tile=16)
    assert Path(tasks[0].dst).read_bytes() == (tmp_path / "alone.tif").read_bytes()


def test_a_scheduler_that_is_not_there_is_named(
    tmp_path: Path, settings: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.0)
    monkeypatch.setattr(cluster, "_CONNECT", 0.2)
    with pytest.raises(GeomoeError, match=r"scheduler tcp://127\.0\.0\.1:1 cannot be reached.*0 of 1 scenes"):
        predict_many(of([scene_task(tmp_path, "a")], settings), scheduler="tcp://127.0.0.1:1")


def test_a_report_says_how_many_tiles_were_gone_on_with(tmp_path: Path, settings: Request) -> None:
    (tmp_path / "out").mkdir()
    (request,) = of([scene_task(tmp_path, "a")], settings)

    class Cut:
        left = 4

        def start(self, total: int, done: int, note: str) -> None:
            pass

        def advance(self) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        def close(self) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        do_scene(request, progress=Cut())
    outcome = do_scene(request)
    write_report(tmp_path / "r.csv", [outcome])
    row = next(csv.DictReader((tmp_path / "r.csv").open()))
    assert (row["status"], row["tiles_resumed"]) == ("done", "4")
