"""Benchmarks of tiny models on made images, from the file to the table."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from geomoe import GeomoeError, create_model
from geomoe.evaluation.benchmark import cost as cost_module
from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.evaluation.benchmark import run as run_module
from geomoe.evaluation.benchmark import runs as runs_module
from geomoe.evaluation.benchmark.run import describe_benchmark
from geomoe.evaluation.peak import peak_of
from geomoe.evaluation.super_resolution import benchmark as images_module
from geomoe.lock import BusyError, locked
from geomoe.models import load
from tests.evaluation.super_resolution.tiny import FILE, here, written


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A benchmark of two arms and two seeds, and what it said."""
    folder = tmp_path_factory.mktemp("benchmark")
    said, measured = [], []

    def once(*given):
        if not measured:  # a process, and seconds
            measured.append(peak_of(*given))
        return measured[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost_module, "peak_of", once)
        benchmark = read_benchmark(written(folder))
        table = run_benchmark(benchmark, data, folder / "out", say=said.append, train=here, device="cpu")
    return folder, table, said


@pytest.mark.filterwarnings("ignore")
def test_two_arms_and_two_seeds_make_a_table(finished):
    folder, table, said = finished
    out = folder / "out"
    results = {p.parent.parent.name + p.parent.name: json.loads(p.read_text())
               for p in out.rglob("result.json")}  # fmt: skip
    assert sorted(results) == ["denseseed0", "denseseed1", "routedseed0", "routedseed1"]
    for arm in ("routed", "dense"):
        row = next(row for row in table.rows if row.arm == arm)
        mine = [results[f"{arm}seed{seed}"] for seed in (0, 1)]
        every = [scores["psnr"] for result in mine for scores in result["scores"].values()]
        assert len(every) == 8, "four test images under two seeds"
        psnr = row.scores["psnr"]
        assert psnr.mean == pytest.approx(np.mean(every))
        assert psnr.low <= psnr.mean <= psnr.high
        assert row.cost.parameters == sum(p.numel() for p in create_model(
            "mfg_hmoe_light", scale=2, **FILE["arms"][arm]["options"]).parameters())  # fmt: skip
        assert row.cost.seconds > 0
        ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        assert 50 < row.cost.peak_mb < ours, "of a process of its own, without Lightning"
        assert [step for step, _ in mine[0]["curve"]] == [3, 6]
    means = [row.scores["psnr"].mean for row in table.rows]
    assert means == sorted(means, reverse=True)
    with (out / "scores.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    assert list(scores[0]) == ["arm", "seed", "item", "metric", "value", "twin", "of"]
    assert len(scores) == 2 * 2 * 4 * 2
    for row in scores:
        found = results[f"{row['arm']}seed{row['seed']}"]["scores"][row["item"]]
        assert float(row["value"]) == pytest.approx(found[row["metric"]], abs=1e-4)
    dense = next(row for row in table.rows if row.arm == "dense")
    assert dense.difference is not None
    by_image = [
        results[f"dense{seed}"]["scores"][image]["psnr"] - results[f"routed{seed}"]["scores"][image]["psnr"]
        for seed in ("seed0", "seed1") for image in results["denseseed0"]["scores"]
    ]  # fmt: skip
    assert dense.difference.mean == pytest.approx(np.mean(by_image))
    assert "run 4 of 4: dense, seed 1" in " ".join(said)
    assert [i for i, line in enumerate(said) if line.endswith(" left")] == [3, 6, 9]
    assert sum("scoring" in line for line in said) == 4


@pytest.mark.filterwarnings("ignore")
def test_arms_see_the_same_patches_under_the_same_seed(finished):
    folder, _, _ = finished
    configs = {
        (arm, seed): yaml.safe_load((folder / "out" / arm / f"seed{seed}" / "fit.yaml").read_text())
        for arm in ("routed", "dense") for seed in (0, 1)
    }  # fmt: skip
    for seed in (0, 1):
        assert configs["routed", seed]["seed_everything"] == configs["dense", seed]["seed_everything"] == seed
        assert configs["routed", seed]["data"] == configs["dense", seed]["data"]
    hashes = {load(str(p)).hash for p in (folder / "out").rglob("best.safetensors")}
    assert len(hashes) == 4


@pytest.fixture(autouse=True)
def peak(monkeypatch):
    """Memory is measured for ``finished`` alone, which is made before: it takes a process, and seconds."""
    monkeypatch.setattr(cost_module, "peak_of", lambda *_: 300.0)


def test_what_is_finished_is_neither_trained_nor_scored_again(finished, data, monkeypatch):
    folder, table, _ = finished

    def never(*_, **__):
        raise AssertionError("this run is finished")

    monkeypatch.setattr(images_module, "evaluate", never)
    said = []
    again = run_benchmark(
        read_benchmark(folder / "tiny.yaml"), data, folder / "out", say=said.append, train=never, device="cpu"
    )
    assert [line for line in said if "is finished" in line] == said[:4]
    assert [(r.arm, r.scores, r.difference, r.p) for r in again.rows] == [
        (r.arm, r.scores, r.difference, r.p) for r in table.rows
    ]
    other = run_benchmark(
        read_benchmark(folder / "tiny.yaml").against("dense"), data, folder / "out", train=never, device="cpu"
    )
    gain = {row.arm: row.difference for row in table.rows}["dense"]
    loss = {row.arm: row.difference for row in other.rows}["routed"]
    assert (loss.mean, loss.low, loss.high) == pytest.approx((-gain.mean, -gain.high, -gain.low))


@pytest.mark.filterwarnings("ignore")
def test_a_changed_configuration_starts_over_and_says_so(finished, data, tmp_path):
    import shutil

    folder, _, _ = finished
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    slower = {**FILE["recipe"], "model": {"learning_rate": 1.0e-4}}
    changed = read_benchmark(written(tmp_path, recipe=slower, seeds=[0]))
    assert "starts over" in describe_benchmark(changed, data, out, only=["dense"])[-1]
    said = []
    table = run_benchmark(changed, data, out, only=["dense"], say=said.append, train=here, device="cpu")
    assert "dense, seed 0, starts over: its configuration or images changed" in said[0]
    aside = [path.name for path in (out / "dense").iterdir() if ".before-" in path.name]
    assert len(aside) == 1, "what was there is kept"
    assert (out / "dense" / aside[0] / "result.json").exists()
    assert [row.arm for row in table.rows] == ["dense"], "results of the old configuration are in no table"
    assert "Not finished with any seed: routed." in table.notes


def test_other_images_are_another_configuration(finished, data, tmp_path):
    import shutil

    folder, _, _ = finished
    shutil.copytree(data, tmp_path / "data")
    lines = describe_benchmark(read_benchmark(folder / "tiny.yaml"), tmp_path / "data", folder / "out")
    assert all("is finished" in line for line in lines[2:]), "the same images elsewhere"
    Image.new("RGB", (48, 48)).save(tmp_path / "data" / "test" / "0.png")
    lines = describe_benchmark(read_benchmark(folder / "tiny.yaml"), tmp_path / "data", folder / "out")
    assert all("starts over" in line for line in lines[2:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_benchmark_goes_on_where_it_was(data, tmp_path):
    """By Ctrl-C on the command; the result is that of a run that was left alone."""
    recipe = {**FILE["recipe"], "trainer": {**FILE["recipe"]["trainer"], "max_steps": 3000}}
    config = written(tmp_path, recipe=recipe, seeds=[0])
    out, run = tmp_path / "out", tmp_path / "out" / "dense" / "seed0"
    # A job in the background is born deaf to Ctrl-C, and so would its children be.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from geomoe.cli.main import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "benchmark", config, "--data", data, "--out", out,
               "--only", "dense"]  # fmt: skip
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (run / "last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, heard = process.communicate(timeout=60)
    assert process.returncode == 130, heard
    assert "geomoe: interrupted" in heard
    assert not (run / "result.json").exists()
    at = load(str(run / "last.safetensors")).card.recipe["steps"]
    assert 3 <= at < 3000
    spent = json.loads((run / "state.json").read_text())["seconds"]
    assert spent > 0
    assert f"continues at step {at} of 3000" in describe_benchmark(read_benchmark(config), data, out)[-1]
    # Left to itself the rest would take minutes: the training is told that nothing is left of it.
    resumed = []

    def stop(fit_config, checkpoint):
        resumed.append(checkpoint)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(read_benchmark(config), data, out, only=["dense"], train=stop, device="cpu")
    assert resumed == [run / "last.ckpt"]
    assert json.loads((run / "state.json").read_text())["seconds"] > spent


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_scores_as_one_that_was_left_alone(finished, data, tmp_path):
    folder, _, _ = finished
    benchmark = read_benchmark(written(tmp_path))

    def cut(config, checkpoint):
        given = yaml.safe_load(Path(config).read_text())
        given["trainer"]["callbacks"] = [{
            "class_path": "EarlyStopping",
            "init_args": {"monitor": "val/psnr", "mode": "max", "stopping_threshold": 0.0},
        }]  # fmt: skip
        (tmp_path / "cut.yaml").write_text(yaml.safe_dump(given))
        here(tmp_path / "cut.yaml", checkpoint)
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, data, out, only=["routed"], seeds=[1], train=cut, device="cpu")
    assert "continues at step 3 of 6" in describe_benchmark(benchmark, data, out, seeds=[1])[2]
    run_benchmark(benchmark, data, out, only=["routed"], seeds=[1], train=here, device="cpu")
    whole, resumed = (json.loads((f / "routed" / "seed1" / "result.json").read_text())
                      for f in (folder / "out", out))  # fmt: skip
    assert resumed["scores"] == whole["scores"]
    assert resumed["curve"] == whole["curve"]
    assert resumed["weights"] == whole["weights"]


@pytest.mark.filterwarnings("ignore")
def test_weights_without_a_checkpoint_do_not_stand_in_the_way(data, tmp_path):
    """An interruption between the first weights and the first checkpoint."""
    benchmark, out = read_benchmark(written(tmp_path, seeds=[0])), tmp_path / "out"

    def cut(config, checkpoint):
        here(config, checkpoint)
        (Path(config).parent / "last.ckpt").unlink()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, data, out, only=["dense"], train=cut, device="cpu")
    table = run_benchmark(benchmark, data, out, only=["dense"], train=here, device="cpu")
    assert table.rows[0].seeds == (0,)


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_fails_does_not_take_the_others_along(finished, data, tmp_path):
    import shutil

    folder, _, _ = finished
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    shutil.rmtree(out / "dense" / "seed0")

    def fails(config, checkpoint):
        raise GeomoeError("out of memory")

    said = []
    with pytest.raises(GeomoeError, match="1 of 4 runs failed: dense, seed 0; run again"):
        run_benchmark(
            read_benchmark(folder / "tiny.yaml"), data, out, say=said.append, train=fails, device="cpu"
        )
    assert "dense, seed 0 failed: out of memory" in said
    assert "dense: not finished with seed 0." in (out / "table.md").read_text()


@pytest.mark.parametrize(("status", "error"), [(1, GeomoeError), (130, KeyboardInterrupt)])
def test_how_a_training_ended_is_known_by_its_status(tmp_path, monkeypatch, status, error):
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setattr(runs_module.sys, "executable", str(program))
    with pytest.raises(error):
        runs_module.train(Path("fit.yaml"), Path("last.ckpt"))
    assert (tmp_path / "said").read_text().endswith("fit --config fit.yaml --ckpt_path last.ckpt\n")


def test_an_end_is_an_end_where_nothing_can_be_written(data, tmp_path):
    """A folder that went away must not turn Ctrl-C into one failed run among others."""

    def interrupted(config, checkpoint):
        shutil.rmtree(tmp_path / "out")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(read_benchmark(written(tmp_path)), data, tmp_path / "out", train=interrupted)


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_another_process_is_at_is_left_to_it(data, tmp_path):
    """The one that comes second does the rest and writes a table; it has no place for the other's run."""
    benchmark, out, said = read_benchmark(written(tmp_path, seeds=[0])), tmp_path / "out", []
    (out / "routed").mkdir(parents=True)
    with locked(out / "routed" / ".seed0", "busy"):
        table = run_benchmark(benchmark, data, out, say=said.append, train=here, device="cpu")
    assert [row.arm for row in table.rows] == ["dense"]
    assert said[0] == "run 1 of 2: routed, seed 0, is left to the process that is working on it"
    assert not (out / "routed" / "seed0").exists()
    assert list((out / "routed").iterdir()) == []
    with locked(out / "dense" / ".seed0", "busy"), locked(out / "routed" / ".seed0", "busy"):
        # What is finished stands in the table whoever else is there.
        table = run_benchmark(benchmark, data, out, say=said.append, train=here, device="cpu")
    assert [row.arm for row in table.rows] == ["dense"]


def test_a_benchmark_that_others_are_at_has_no_table_yet(data, tmp_path):
    out = tmp_path / "out"
    (out / "dense").mkdir(parents=True)
    with locked(out / "dense" / ".seed0", "busy"), pytest.raises(BusyError, match="writes the table"):
        run_benchmark(read_benchmark(written(tmp_path, seeds=[0])), data, out, only=["dense"], device="cpu")
    assert not (out / "table.md").exists()


def test_a_table_waits_for_its_turn_and_has_what_was_finished_meanwhile(
    finished, data, tmp_path, monkeypatch
):
    folder, _, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    others = tmp_path / "out" / "routed" / "seed1" / "result.json"
    others.rename(tmp_path / "result.json")
    said, counted = [], []
    monkeypatch.setattr(run_module, "_write", lambda _, done, *__: counted.append(len(done["routed"])))
    process = threading.Thread(
        target=run_benchmark, args=(read_benchmark(written(tmp_path)), data, tmp_path / "out"),
        kwargs={"device": "cpu", "say": said.append},
    )  # fmt: skip
    with locked(others.parent.with_name(".seed1"), "busy"), locked(tmp_path / "out" / ".table", "busy"):
        process.start()
        deadline = time.monotonic() + 60
        while "another process writes the table; waiting for it" not in said:
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (tmp_path / "result.json").rename(others)
        process.join(1)
        assert counted == []
    process.join(60)
    assert counted == [2]


def test_a_training_that_outlives_its_benchmark_keeps_its_run(tmp_path):
    lock = tmp_path / ".seed0"
    code = (
        "import os, subprocess, sys; from pathlib import Path; from geomoe.lock import locked\n"
        "with locked(Path(sys.argv[1]), 'busy', inherited=True):\n"
        "    subprocess.Popen([sys.executable, '-c', 'input()'], close_fds=False)\n"
        "    os._exit(9)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.PIPE) as killed:
        assert killed.wait(60) == 9
        with pytest.raises(BusyError), locked(lock, "busy"):
            pass
        killed.communicate(b"\n")
    deadline = time.monotonic() + 60
    while True:
        with suppress(BusyError), locked(lock, "busy"):
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_arm_whose_folder_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dense").write_text("mine")
    with pytest.raises(GeomoeError, match="dense cannot be made"):
        run_benchmark(read_benchmark(written(tmp_path)), data, tmp_path / "out", only=["dense"], device="cpu")
