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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from geomoe import GeomoeError, create_model, list_models
from geomoe.cli.main import main
from geomoe.configs import shipped
from geomoe.evaluation.benchmark import cost as cost_module
from geomoe.evaluation.benchmark import images as images_module
from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.evaluation.benchmark import run as run_module
from geomoe.evaluation.benchmark import runs as runs_module
from geomoe.evaluation.benchmark.cost import Cost, active_parameters
from geomoe.evaluation.benchmark.curves import mean_curve
from geomoe.evaluation.benchmark.render import cells, html, latex, markdown
from geomoe.evaluation.benchmark.result import Result, read_result
from geomoe.evaluation.benchmark.run import describe_benchmark
from geomoe.evaluation.benchmark.table import make_table
from geomoe.lock import BusyError, locked
from geomoe.models import load
from geomoe.tasks.fit import fit
from tests.models.test_models import tiny

TINY = {"embed_dim": 8, "depths": [1, 1], "heads": 2, "window": 4, "squeeze": 4, "width": 4,
        "expert_width": 4, "router_width": 4, "experts_per_group": 2}  # fmt: skip
FILE = {
    "title": "Tiny models",
    "flagship": "routed",
    "scale": 2,
    "seeds": [0, 1],
    "train": "train",
    "test": "test",
    "recipe": {
        "trainer": {"max_steps": 6, "accelerator": "cpu", "enable_progress_bar": False,
                    "enable_model_summary": False, "log_every_n_steps": 1},
        "model": {"learning_rate": 1.0e-3},
        "data": {"patch_size": 8, "batch_size": 2, "steps_per_epoch": 3},
    },
    "arms": {
        "routed": {"model": "mfg_hmoe_light", "options": TINY, "paper": {"psnr": 29.2, "ssim": 0.79}},
        "dense": {"model": "mfg_hmoe_light", "options": {**TINY, "head": "dense"}, "paper": {"psnr": 29.3}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 4)):
        (root / part).mkdir()
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize((48, 48), Image.Resampling.BICUBIC).save(root / part / f"{i}.png")
    return root


def written(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**FILE, **changes}, sort_keys=False))
    return path


def here(config, checkpoint):
    """Training without a process of its own, which takes seconds to start."""
    before = signal.getsignal(signal.SIGINT)
    fit([f"--config={config}", *([] if checkpoint is None else [f"--ckpt_path={checkpoint}"])])
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A benchmark of two arms and two seeds, and what it said."""
    folder = tmp_path_factory.mktemp("benchmark")
    said = []
    table = run_benchmark(
        read_benchmark(written(folder)), data, folder / "out", say=said.append, train=here, device="cpu"
    )
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
    assert list(scores[0]) == ["arm", "seed", "item", "metric", "value"]
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
    monkeypatch.setattr(cost_module, "_peak", lambda *_: 300.0)


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


def result(arm, seed, psnr, **more):
    scores = {f"{i}.png": {"psnr": value, "ssim": 0.7} for i, value in enumerate(psnr)}
    usual = {
        "hash": "0", "arm": arm, "seed": seed, "steps": 100, "seconds": 90.0, "scored": "6 images",
        "scores": scores, "baseline": {"psnr": 26.0, "ssim": 0.6},
        "curve": [(50, 25.0), (100, 27.0)], "weights": "0", "commit": "abc", "hardware": "a machine",
        "config": {},
    }  # fmt: skip
    return Result(**{**usual, **more})


@pytest.fixture
def table(tmp_path):
    benchmark = read_benchmark(written(tmp_path))
    base = np.array([28.0, 29.0, 30.0, 31.0, 32.0, 33.0])
    gains = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    results = {
        "routed": [result("routed", 0, base), result("routed", 1, base + 1)],
        "dense": [result("dense", 0, base - gains), result("dense", 1, base + 1 - gains)],
    }
    costs = {
        "routed": Cost(26_397_147, 25_862_811, 104.156, 1.2, 590.4),
        "dense": Cost(1000, 1000, 1.5, 0.05, 300),
    }
    return make_table(benchmark, results, costs, "a machine", "2026-01-01")


def test_results_of_version_0_1_are_read(tmp_path):
    found = result("routed", 0, [28.0, 29.0])
    held = {
        k: v for k, v in vars(found).items() if k not in ("scores", "baseline", "baseline_by_degradation")
    }
    held |= {"psnr": {"0.png": 28.0, "1.png": 29.0}, "ssim": {"0.png": 0.7, "1.png": 0.7}}
    held |= {"bicubic_psnr": 26.0, "bicubic_ssim": 0.6, "by_degradation": {"mtf": {"0.png": 28.0}}}
    held |= {"bicubic_by_degradation": {"mtf": {"0.png": 26.0}}}
    (tmp_path / "result.json").write_text(json.dumps(held))
    read = read_result(tmp_path / "result.json")
    assert read.by_degradation == {"mtf": {"0.png": {"psnr": 28.0}}}
    assert read.baseline_by_degradation == {"mtf": {"0.png": {"psnr": 26.0}}}
    assert replace(read, by_degradation={}, baseline_by_degradation={}) == found


def test_differences_are_paired_and_tested(table):
    routed, dense = table.rows
    assert routed.difference is None
    assert routed.p is None
    assert routed.scores["psnr"].mean == pytest.approx(31)
    assert dense.difference.mean == pytest.approx(-0.35)
    assert -0.6 <= dense.difference.low < -0.35 < dense.difference.high < -0.1
    assert dense.p == pytest.approx(2 / 64), "six losses, one comparison"
    assert dense.scores["psnr"].half > dense.difference.half, "images differ more than arms do"


def test_the_table_says_what_it_is(table):
    text = markdown(table)
    for said in ("protocol: mfg_hmoe", "degradation: bilinear", "seeds: 0, 1", "steps: 100", "test: 6 images",
                 "commit: abc", "date: 2026-01-01", "a machine", "26,397,147", "25,862,811", "104.16",
                 "-0.350 [", "0.0312", "29.2000", "0.7900", "31.000 ±", "1.5"):  # fmt: skip
        assert said in text, said
    assert "By the paper's PSNR the order is another: dense, routed." in text
    assert "Baseline, bicubic: PSNR 26.000 dB, SSIM 0.6000." in text


def test_every_format_holds_every_cell(table):
    titles, rows = cells(table)
    page, tex = html(table), latex(table)
    for text in [*titles, *(cell for row in rows for cell in row)]:
        assert text in page
        assert text.replace("±", r"$\pm$") in tex
    assert tex.count(r"\\") == 3
    assert page.count("<tr") == 3
    assert '<tr class="flagship"><td>routed' in page
    assert "http" not in page, "no other file is wanted"


def test_names_cannot_break_a_table(table):
    row = replace(table.rows[0], label="a|b & <c> 5%_#")
    odd = replace(table, rows=(row,))
    assert r"a\|b" in markdown(odd)
    assert "a|b &amp; &lt;c&gt;" in html(odd)
    assert r"a|b \& $<$c$>$ 5\%\_\#" in latex(odd)


def test_columns_of_the_paper_are_there_where_it_has_values(table):
    bare = replace(table, rows=tuple(replace(row, paper={}) for row in table.rows))
    assert not any("paper" in title for title in cells(bare)[0])
    psnr = replace(table, rows=tuple(replace(row, paper={"psnr": 29.0}) for row in table.rows))
    assert cells(psnr)[0][-1] == "paper: PSNR"


def test_the_order_is_held_against_the_papers_and_between_seeds(tmp_path):
    arms = {name: {"model": "mfg_hmoe_light", "options": TINY, "paper": {"psnr": paper}}
            for name, paper in (("routed", 29.0), ("b", 28.0), ("c", 27.0))}  # fmt: skip
    benchmark = read_benchmark(written(tmp_path, seeds=[0, 1], arms=arms))
    scores = {"routed": (27.0, 27.0), "b": (28.0, 29.0), "c": (29.0, 28.0)}
    made = {
        name: [result(name, seed, [psnr, psnr]) for seed, psnr in enumerate(by_seed)]
        for name, by_seed in scores.items()
    }
    costs = dict.fromkeys(made, Cost(1, 1, 1.0, 1.0, 1.0))
    told = make_table(benchmark, made, costs, "a machine").notes
    assert any("beside the paper's, 3 arms: Kendall's tau -0.82" in note for note in told)
    assert any("beside another's, 2 seeds: Kendall's tau +0.33." in note for note in told)
    two = {name: made[name] for name in ("routed", "b")}
    told = make_table(benchmark, two, costs, "a machine").notes
    assert not any("Kendall" in note for note in told)


def test_one_seed_is_said_to_be_one(tmp_path):
    benchmark = read_benchmark(written(tmp_path, seeds=[0]))
    one = make_table(benchmark, {"routed": [result("routed", 0, [28.0, 30.0])]},
                     {"routed": Cost(1, 1, 1.0, 1.0, 1.0)}, "a machine")  # fmt: skip
    alone = "Intervals: 95 %, over images alone. Of one seed nothing is known about others."
    assert alone in one.notes
    assert not any("Wilcoxon" in note for note in one.notes)
    two = {"routed": [result("routed", seed, [28.0, 30.0]) for seed in (0, 1)]}
    costs = dict.fromkeys(("routed", "dense"), Cost(1, 1, 1.0, 1.0, 1.0))
    assert "Intervals: 95 %, over images and seeds." in make_table(benchmark, two, costs, "a machine").notes
    mixed = make_table(benchmark, two | {"dense": [result("dense", 0, [28.0, 30.0])]}, costs, "a machine")
    assert alone.replace("images", "images and seeds; of an arm with one seed, over images") in mixed.notes


def test_a_curve_is_the_mean_over_seeds():
    one, two = result("a", 0, [28.0]), result("a", 1, [28.0], curve=[(50, 27.0), (100, 28.0), (150, 30.0)])
    assert mean_curve([one, two]) == [(50, 26.0), (100, 27.5)]


def test_active_parameters_leave_out_experts_that_a_pixel_was_not_given():
    model = tiny("mfg_hmoe", kernel_sizes=(3,), experts_per_group=4).eval()
    total = sum(p.numel() for p in model.parameters())
    expert = 6 * 9 * 16 + 16  # 6 channels to 4 * 2^2 by a 3x3 kernel
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert active_parameters(model, x) == total - 3 * expert
        both = tiny("mfg_hmoe", kernel_sizes=(3,), experts_per_group=4, top_k=2).eval()
        assert active_parameters(both, x) == total - 2 * expert
        dense = tiny("mfg_hmoe", head="dense").eval()
        assert active_parameters(dense, x) == sum(p.numel() for p in dense.parameters())
        # A layer that carries out its plan by itself: three blocks, each with 4 experts of which 2 are run.
        whole = tiny("swin2_mose", num_experts=4).eval()
        expert = 12 * 12 + 12 + 12 * 12 + 12
        total = sum(p.numel() for p in whole.parameters())
        assert active_parameters(whole, x) == total - 3 * 2 * expert


BAD = {
    "unknown key": ({"sedes": [0]}, "has no 'sedes'"),
    "no arms": ({"arms": {}}, "arms"),
    "no such flagship": ({"flagship": "hat"}, "no arm is called 'hat'"),
    "scale": ({"scale": 5}, "scale=5"),
    "seeds": ({"seeds": [0, 0]}, "each seed once"),
    "seeds as text": ({"seeds": "0,1"}, "list of whole numbers"),
    "protocol": ({"protocol": "psnr"}, "no protocol is called 'psnr'"),
    "degradation": ({"degradation": "blur"}, "no degradation is called 'blur'"),
    "section": ({"recipe": {"optimiser": {}}}, "recipe has no 'optimiser'"),
    "option of fit": ({"recipe": {"trainer": {"max_stepz": 1}}}, "recipe.trainer has no 'max_stepz'"),
    "what the benchmark sets": ({"recipe": {"data": {"seed": 1}}}, "recipe.data.seed is set by"),
    "no steps": ({"recipe": {"trainer": {}}}, "max_steps=None"),
    "steps": ({"recipe": {"trainer": {"max_steps": 7}}}, "divisor of max_steps=7"),
    "arm's key": ({"arms": {"routed": {"modle": "x"}}}, "arms.routed has no 'modle'"),
    "arm's name": ({"arms": {"../x": {"model": "y"}}}, "arm='../x'"),
    "arm's scale": ({"arms": {"routed": {"model": "x", "options": {"scale": 2}}}}, "the same for all arms"),
    "paper": ({"arms": {"routed": {"model": "x", "paper": {"psnr": "high"}}}}, "paper.psnr='high'"),
    "no mapping": ({"recipe": [1]}, "recipe: expected names with values"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_in_one_line(case, tmp_path):
    changes, said = BAD[case]
    with pytest.raises(GeomoeError) as error:
        read_benchmark(written(tmp_path, **changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("tiny.yaml: ")


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(GeomoeError, match="cannot be read"):
        read_benchmark(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(GeomoeError, match="is not YAML"):
        read_benchmark(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("title: x\n")
    with pytest.raises(GeomoeError, match="flagship is missing"):
        read_benchmark(tmp_path / "bad.yaml")


def test_a_model_that_is_not_there_is_named_before_anything_is_run(data, tmp_path):
    arms = {**FILE["arms"], "later": {"model": "not_yet"}}
    benchmark = read_benchmark(written(tmp_path, arms=arms))
    with pytest.raises(GeomoeError, match=r"arm later: no model is called 'not_yet'.*--only"):
        run_benchmark(benchmark, data, tmp_path / "out", train=here)
    assert not (tmp_path / "out").exists()
    assert len(describe_benchmark(benchmark, data, tmp_path / "out", only=["dense"])) == 3
    with pytest.raises(GeomoeError, match="no arm is called 'rotued'; there are: routed, dense, later"):
        describe_benchmark(benchmark, data, tmp_path / "out", only=["rotued"])


def test_test_images_are_kept_from_training(data, tmp_path):
    for train, test in (("", "test"), ("test", "test"), ("train", ".")):
        with pytest.raises(GeomoeError, match="keep them apart"):
            describe_benchmark(read_benchmark(written(tmp_path, train=train, test=test)), data, tmp_path)
    with pytest.raises(GeomoeError, match="no test split that geomoe knows"):
        describe_benchmark(read_benchmark(written(tmp_path, test=None)), data, tmp_path)


def test_pairs_that_were_measured_are_refused(data, tmp_path):
    """Training would take them as they are, and the test would make both images of each small."""
    for name in ("LR", "HR"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        (tmp_path / "pairs" / name / "1.png").write_bytes((data / "test" / "0.png").read_bytes())
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes((data / "test" / "1.png").read_bytes())
    for train, test in (("pairs", "test"), ("test", "pairs")):
        benchmark = read_benchmark(written(tmp_path, train=train, test=test))
        with pytest.raises(GeomoeError, match=r"pairs that were measured \(paired\)"):
            describe_benchmark(benchmark, tmp_path, tmp_path / "out")


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


def test_dry_run_tells_and_writes_nothing(data, tmp_path, capsys):
    config = written(tmp_path)
    main_status(
        ["benchmark", config, "--data", data, "--out", tmp_path / "out", "--seeds", "3,4", "--dry-run"]
    )
    said = capsys.readouterr().out.splitlines()
    assert said[2:] == [
        "run 1 of 4: routed, seed 3, 6 steps",
        "run 2 of 4: dense, seed 3, 6 steps",
        "run 3 of 4: routed, seed 4, 6 steps",
        "run 4 of 4: dense, seed 4, 6 steps",
    ]
    assert said[0].startswith("routed: mfg_hmoe_light, ")
    assert not (tmp_path / "out").exists()
    assert main_status(["benchmark", config, "--data", data, "--seeds", "a"]) == 1
    assert "--seeds a: expected whole numbers" in capsys.readouterr().err
    assert main_status(["benchmark", config, "--data", data, "--against", "gated", "--dry-run"]) == 1
    assert "no arm is called 'gated'; there are: routed, dense" in capsys.readouterr().err


def main_status(args):
    try:
        main([str(arg) for arg in args])
    except SystemExit as stop:
        return stop.code
    return 0


def test_the_file_in_the_documentation_is_one(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    (tmp_path / "page.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    benchmark = read_benchmark(tmp_path / "page.yaml")
    assert benchmark.recipe_of(benchmark.arms[1])["model"]["balance"] == "bias"
    assert "balance" not in benchmark.recipe_of(benchmark.arms[0])["model"]


CONFIGS = list(shipped("benchmarks").values())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_shipped_benchmarks_are_understood(config):
    """Arms of models that are registered can be built; the others are named when they are run."""
    benchmark = read_benchmark(config)
    assert len(benchmark.arms) >= 2
    for arm in benchmark.arms:
        if arm.model in list_models():
            with torch.device("meta"):
                create_model(arm.model, **benchmark.model_options(arm))
        else:
            with pytest.raises(GeomoeError, match=f"arm {arm.name}: no model is called"):
                benchmark.model_config(arm)


def test_a_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(GeomoeError, match="cannot be made"):
        run_benchmark(read_benchmark(written(tmp_path)), data, tmp_path / "out", train=here)
