"""Controls of a model: their file, what may be called a twin, ensembles, sweeps and ranks."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from geomoe import GeomoeError, create_model
from geomoe.cli.main import main
from geomoe.evaluation.benchmark import cost as cost_module
from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.evaluation.benchmark.cost import Cost
from geomoe.evaluation.benchmark.curves import draw_ranks, draw_scaling
from geomoe.evaluation.benchmark.ensemble import Ensemble
from geomoe.evaluation.benchmark.render import cells, html, markdown
from geomoe.evaluation.benchmark.result import write_scores
from geomoe.evaluation.benchmark.table import make_table
from geomoe.evaluation.benchmark.twins import differences
from geomoe.evaluation.benchmark.write import twins_file, write_twins
from geomoe.models.contract import Input, ModelContract, Output
from geomoe.models.weights import Card, save
from tests.evaluation.super_resolution.test_benchmark_table import result
from tests.evaluation.super_resolution.tiny import here
from tests.evaluation.test_benchmark_tasks import MAPS, data, written  # noqa: F401

ALL = {"moe", "active", "ensemble", "parameters", "gated", "frozen"}


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        ("eurosat_vmoe", ALL),
        ("indian_pines_unet_spatial_moe", ALL - {"gated"}),
        ("mfg_hmoe_light_x2", ALL),
        ("mfg_hmoe_light_satellites", ALL - {"active", "parameters", "ensemble"}),
    ],
)
def test_the_file_of_a_configuration_has_arms_of_one_recipe(name, arms, tmp_path):
    notes = write_twins(name, tmp_path / "twins.yaml")
    benchmark = read_benchmark(tmp_path / "twins.yaml")
    assert {arm.name for arm in benchmark.arms} == arms
    assert not any(differences(benchmark, arm) for arm in benchmark.arms)
    assert len(notes) == len(ALL - {"ensemble"} - arms), "what was left out is said, with its reason"


def card_of(model, name, **recipe):
    usual = {
        "steps": 40, "of": 40, "batch_size": 2, "size": 16, "steps_per_epoch": 20,
        "losses": {"smoothed": 1.0},
        "optimiser": "Adam", "learning_rate": 1e-3, "betas": [0.9, 0.99], "schedule": "cosine", "warmup": 0.1,
        "milestones": [], "gradient_clip": None, "ema_decay": 0.99, "balance": "importance",
        "balance_weight": 0.01, "balance_until": 1.0, "precision": "32-true", "compiled": False, "seed": 7,
    }  # fmt: skip
    return Card(
        model=name, task="classification", config=asdict(model.config), radiometry="unit", data={},
        degradation="", recipe=usual | recipe, protocol="classification", scores={}, commit="", date="",
        licence="",
    )  # fmt: skip


def test_a_card_tells_the_recipe_of_its_twins(tmp_path):
    options = {"classes": ("a", "b"), "embed_dim": 12, "depth": 2, "heads": 2, "patch": 4, "experts": 3}
    model = create_model("vmoe_ti", **options)
    save(tmp_path / "w.safetensors", model, card_of(model, "vmoe_ti"))
    write_twins(str(tmp_path / "w.safetensors"), tmp_path / "t.yaml", {"experts": [2, 3]})
    benchmark = read_benchmark(tmp_path / "t.yaml")
    recipe = benchmark.recipe
    assert recipe["trainer"] == {"max_steps": 40, "precision": "32-true"}
    assert recipe["data"] == {"size": 16, "batch_size": 2, "steps_per_epoch": 20}
    assert recipe["model"]["schedule"] == "cosine"
    assert recipe["ema"] == {"decay": 0.99}
    assert benchmark.arm("moe").options == {"embed_dim": 12, "depth": 2, "heads": 2, "patch": 4, "experts": 3}
    assert benchmark.arm("experts2").at == {"experts": 2}
    save(tmp_path / "on.safetensors", model, card_of(model, "vmoe_ti", start={"hash": "0"}))
    with pytest.raises(GeomoeError, match="went on from others"):
        twins_file(str(tmp_path / "on.safetensors"), {})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--twins", "vmoe_ti"], "--out FILE.yaml"),
        (["--twins", "vmoe_ti", "--out", "x.yaml"], "a model without a recipe"),
        (["--twins", "eurosat_vit", "--out", "x.yaml"], "has no experts, and so no twins"),
        (["--twins", "eurosat_vmoe", "--out", "x.txt"], "must end in .yaml"),
        (["--twins", "eurosat_vmoe", "--out", "x.yaml", "--sweep", "experts"], "expected OPTION=VALUE"),
        (["--twins", "eurosat_vmoe", "--out", "x.yaml", "--sweep", "wheels=2"], "no option 'wheels'"),
        (["eurosat", "--sweep", "experts=2"], "--sweep goes with --twins"),
        ([], "give CONFIG"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_line(args, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *args])
    assert stop.value.code == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweep_leaves_out_what_there_cannot_be(tmp_path, capsys):
    main(["benchmark", "--twins", "eurosat_vmoe", "--out", str(tmp_path / "t.yaml"),
          "--sweep", "experts=2,4", "--sweep", "router_options.top_k=1,3"])  # fmt: skip
    arms = {arm.name: arm for arm in read_benchmark(tmp_path / "t.yaml").arms if arm.at}
    assert set(arms) == {"experts2-top_k1", "experts4-top_k1", "experts4-top_k3"}
    assert arms["experts4-top_k3"].options["router_options"] == {"top_k": 3}
    assert "experts=2, top_k=3: vmoe_ti: top_k=3: there are 2 experts" in capsys.readouterr().err


def test_a_point_of_a_sweep_that_is_the_model_itself_is_not_trained_twice(tmp_path):
    write_twins("eurosat_vmoe", tmp_path / "t.yaml", {"experts": [4, 8], "router_options.top_k": [2]})
    arms = {arm.name: arm.at for arm in read_benchmark(tmp_path / "t.yaml").arms if arm.at}
    assert arms == {"moe": {"experts": 8, "top_k": 2}, "experts4-top_k2": {"experts": 4, "top_k": 2}}


SCORES = np.linspace(0.5, 0.9, 12)


def tables(tmp_path, arms, offsets=None):
    benchmark = read_benchmark(written(tmp_path, MAPS, settings={}, arms=arms))
    scores = {name: SCORES - (offsets or {}).get(name, 0) for name in arms}
    results = {
        name: [
            result(
                name, 0, [], baseline={"oa": 0.3}, scores={str(i): {"oa": v} for i, v in enumerate(of)}
            )
        ]
        for name, of in scores.items()
    }  # fmt: skip
    costs = {name: Cost(1000 + 10 * i, 500, 2.0, 0.1, 300) for i, name in enumerate(arms)}
    return make_table(benchmark, results, costs, "a machine", "2026-01-01")


SMALL = {"width": 4, "depth": 1, "experts": 2}
MOE = {"moe": {"model": "unet_spatial_moe", "options": SMALL}}


def twin(kind, **more):
    return {"model": "unet_spatial_moe", "options": {**SMALL, "twin": kind}, **more}


def test_a_twin_is_called_one_and_its_mismatch_is_said(tmp_path):
    table = tables(tmp_path, {**MOE, "dense": twin("active"), "frozen": twin("frozen")})
    titles, rows = cells(table)
    of = {row.arm: dict(zip(titles, line, strict=True)) for row, line in zip(table.rows, rows, strict=True)}
    assert of["moe"]["twin"] == ""
    assert of["dense"]["twin"] == "dense twin, equal active cost"
    assert of["dense"]["parameters +/-"] == "+1.0 %"
    assert of["frozen"]["GMAC +/-"] == "+0.0 %"
    assert not any("no twin" in note for note in table.notes)
    assert {row.arm: row.kind for row in table.rows} == {"moe": "", "dense": "active", "frozen": "frozen"}


def test_the_table_of_scores_says_what_is_a_twin_of_what(tmp_path):
    pair = [
        result(name, 0, [], scores={"a": {"oa": 0.5}}, baseline={}, overall={"kappa": 0.25})
        for name in ("moe", "dense")
    ]
    write_scores(tmp_path / "scores.csv", pair, {"dense": ("active", "moe")})
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "arm,seed,item,metric,value,twin,of",
        "moe,0,a,oa,0.5,,",
        "dense,0,a,oa,0.5,active,moe",
        "moe,0,all,kappa,0.25,,",
        "dense,0,all,kappa,0.25,active,moe",
    ]


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (twin("active", recipe={"model": {"learning_rate": 0.1}}), "model.learning_rate 0.1, not 0.01"),
        (twin("gated", recipe={"data": {"steps_per_epoch": 4}}), "data.steps_per_epoch 4, not 2"),
        (
            {"model": "unet_spatial_moe", "options": {**SMALL, "width": 8, "twin": "frozen"}},
            "options.width 8, not 4",
        ),
        (twin("active", recipe={"model": {"warmup": 0.5}}), "model.warmup 0.5, not as usual"),
    ],
)
def test_what_was_trained_otherwise_is_no_twin(arm, said, tmp_path):
    table = tables(tmp_path, {**MOE, "other": arm})
    assert next(row for row in table.rows if row.arm == "other").twin == "no twin"
    assert f"other is no twin of moe: {said}." in table.notes
    assert "no twin" in markdown(table)


def test_what_does_not_claim_to_be_a_twin_may_be_trained_as_it_likes(tmp_path):
    other = {
        "model": "unet_spatial_moe",
        "options": {**SMALL, "width": 8},
        "recipe": {"model": {"warmup": 0.5}},
    }
    assert {row.twin for row in tables(tmp_path, {**MOE, "wide": other}).rows} == {""}


def test_an_arm_may_be_tested_against_another_than_the_flagship(tmp_path):
    own = {"recipe": {"model": {"warmup": 0.5}}}
    system = {"model": "unet_spatial_moe", "options": {**SMALL, "width": 8}, **own}
    dense = twin("active", beside="system", **own)
    dense["options"]["width"] = 8
    arms = {**MOE, "system": system, "dense": dense}
    table = tables(tmp_path, arms, {"system": 0.1, "dense": 0.3})
    titles, rows = cells(table)
    of = {row.arm: dict(zip(titles, line, strict=True)) for row, line in zip(table.rows, rows, strict=True)}
    assert [of[name]["beside"] for name in arms] == ["", "moe", "system"]
    assert of["system"]["OA to that arm"].startswith("-0.1000")
    assert of["dense"]["OA to that arm"].startswith("-0.2000")
    assert of["dense"]["twin"] == "dense twin, equal active cost"
    assert of["dense"]["parameters +/-"] == "+1.0 %", "of 1,020 to the 1,010 of the system"
    assert any("Differences are to the arm that the row names" in note for note in table.notes)


@pytest.mark.parametrize(("beside", "said"), [("dense", "another arm"), ("sun", "no arm is called 'sun'")])
def test_an_arm_beside_itself_or_nothing_is_refused(beside, said, tmp_path):
    with pytest.raises(GeomoeError, match=said):
        read_benchmark(written(tmp_path, MAPS, arms={**MOE, "dense": twin("active", beside=beside)}))


def test_arms_are_ranked_where_there_are_blocks_enough(tmp_path):
    pytest.importorskip("matplotlib")
    arms = {**MOE, "dense": twin("active"), "frozen": twin("frozen")}
    table = tables(tmp_path, arms, {"dense": 0.1, "frozen": 0.2})
    assert table.ranking.ranks == (1, 2, 3)
    assert any("Friedman's test over 12 samples, 3 arms: p < 0.0001" in note for note in table.notes)
    draw_ranks(tmp_path / "ranks.png", [row.label for row in table.rows], table.ranking)
    page = html(table, {"Mean <ranks>": tmp_path / "ranks.png"})
    assert "Mean &lt;ranks&gt;" in page
    assert json.dumps(table.as_dict())


def test_too_few_blocks_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SCORES", SCORES[:3])
    table = tables(tmp_path, {**MOE, "dense": twin("active"), "frozen": twin("frozen")})
    assert table.ranking is None
    assert any("want 10 blocks or more; 3 samples are too few" in note for note in table.notes)


def test_what_one_score_says_has_no_interval(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SCORES", SCORES[:1])
    text = markdown(tables(tmp_path, {**MOE, "dense": twin("active")}, {"dense": 0.1}))
    assert "| 0.5000 |" in text
    assert "| -0.1000 |" in text
    assert "±" not in text
    assert "| p |" not in text, "one sample is no test"


def test_a_sweep_is_drawn_and_listed(tmp_path):
    pytest.importorskip("matplotlib")
    arms = {
        f"e{e}k{k}": {"model": "unet_spatial_moe", "options": SMALL, "at": {"experts": e, "top_k": k}}
        for e in (2, 4) for k in (1, 2)
    }  # fmt: skip
    table = tables(tmp_path, {**MOE, **arms})
    text = markdown(table)
    assert "| experts | top_k | parameters |" in text
    assert "| 4 | 2 | 1,040 |" in text
    draw_scaling(tmp_path / "scaling.png", table.rows, table.ranks)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


class Says(nn.Module):
    def __init__(self, logits, classes=("a", "b")):
        super().__init__()
        self.logits = torch.tensor(logits)
        kind = Output("label", 2, classes=classes) if classes else Output("features", 2)
        self.contract = ModelContract({"image": Input(3)}, {kind.kind: kind})

    def forward(self, x, trace=None):
        return self.logits.expand(len(x), -1)


def test_an_ensemble_gives_the_mean_of_probabilities_or_of_values():
    x = torch.zeros(2, 3, 4, 4)
    sure, other = [9.0, 0.0], [0.0, 1.0]
    found = Ensemble([Says(sure), Says(other)])(x, trace=None).softmax(1)
    expected = (torch.tensor(sure).softmax(0) + torch.tensor(other).softmax(0)) / 2
    assert torch.allclose(found, expected.expand(2, 2))
    assert torch.equal(
        Ensemble([Says(sure, ()), Says(other, ())])(x), torch.tensor([[4.5, 0.5]]).expand(2, 2)
    )


@pytest.mark.parametrize("members", [0, "two", 1.5])
def test_bad_members_are_refused(members, tmp_path):
    with pytest.raises(GeomoeError, match="members"):
        read_benchmark(written(tmp_path, MAPS, arms={**MOE, "m": twin("active", members=members)}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_ensemble_shares_the_steps_and_is_one_row(data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cost_module, "peak_of", lambda *_: 300.0)
    arms = {**MOE, "ensemble": twin("active", members=2), "gated": twin("gated")}
    benchmark = read_benchmark(written(tmp_path, MAPS, settings={}, arms=arms, seeds=[0]))
    benchmark = replace(
        benchmark, recipe={**benchmark.recipe, "data": {**benchmark.recipe["data"], "split": "pixels"}}
    )
    out = tmp_path / "out"
    table = run_benchmark(benchmark, data, out, train=here, device="cpu")
    rows = {row.arm: row for row in table.rows}
    assert set(rows) == {"moe", "ensemble", "gated"}
    assert rows["ensemble"].twin == "ensemble of 2"
    fits = {path.parent.parent.name: yaml.safe_load(path.read_text()) for path in out.rglob("fit.yaml")}
    assert [fits[f"ensemble-{i}"]["trainer"]["max_steps"] for i in (1, 2)] == [2, 2]
    assert len({fits[f"ensemble-{i}"]["seed_everything"] for i in (1, 2)}) == 2
    assert rows["ensemble"].cost.parameters % 2 == 0
    assert (
        run_benchmark(benchmark, data, out, train=None, device="cpu").rows[0].scores == table.rows[0].scores
    )
