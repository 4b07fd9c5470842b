"""Tables of benchmarks: what is compared, tested and printed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from geomoe.evaluation.benchmark import read_benchmark
from geomoe.evaluation.benchmark.cost import Cost, active_parameters
from geomoe.evaluation.benchmark.curves import mean_curve
from geomoe.evaluation.benchmark.render import cells, html, latex, markdown
from geomoe.evaluation.benchmark.result import Result, read_result
from geomoe.evaluation.benchmark.table import make_table
from tests.evaluation.super_resolution.tiny import TINY, written
from tests.models.test_models import tiny


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
