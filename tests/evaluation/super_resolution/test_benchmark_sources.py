"""Benchmarks over several sources: mixed training, networks for each sensor, scores by sensor and source."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from geomoe import GeomoeError
from geomoe.configs import find_config
from geomoe.evaluation.benchmark import cost as cost_module
from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.evaluation.benchmark.render import group_cells, html, latex, markdown
from geomoe.evaluation.benchmark.result import Result, join
from geomoe.evaluation.benchmark.run import describe_benchmark
from geomoe.evaluation.super_resolution.benchmark import locate_images
from tests.evaluation.super_resolution.tiny import FILE, TINY, here

SOURCES = [
    {"name": "photos", "folder": "photos", "share": 3, "sensor": "aerial", "degradations": {"mtf": 1}},
    {"name": "fields", "folder": "fields", "sensor": "sentinel-2", "gsd": 10},
    {"name": "towns", "folder": "towns", "share": 2, "sensor": "sentinel-2"},
]
FACTS = {"scale": 2, "sources": SOURCES, "seeds": [0], "flagship": "routed"}
RECIPE = {**FILE["recipe"], "trainer": {**FILE["recipe"]["trainer"], "max_steps": 12}}
RECIPE["data"] = {**RECIPE["data"], "steps_per_epoch": 6}
ARMS = {
    "routed": {"model": "mfg_hmoe_light", "options": {**TINY, "informed": True}},
    "each": {"label": "one a sensor", "model": "mfg_hmoe_light", "options": TINY, "each": "sensor"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for source in SOURCES:
        (root / source["folder"]).mkdir()
        for i in range(10):
            small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize((48, 48), Image.Resampling.BICUBIC).save(root / source["folder"] / f"{i}.png")
    return root


def written(folder, **changes):
    kept = {key: value for key, value in FILE.items() if key not in ("train", "test")}
    path = folder / "several.yaml"
    path.write_text(
        yaml.safe_dump({**kept, **FACTS, "recipe": RECIPE, "arms": ARMS, **changes}, sort_keys=False)
    )
    return path


def test_what_lies_beside_the_sources_makes_no_other_benchmark(data, tmp_path):
    made = {"name": "made", "made": ["flat"]}
    benchmark = read_benchmark(written(tmp_path, sources=[*SOURCES, made], arms={"routed": ARMS["routed"]}))
    before = locate_images(benchmark, data).digest
    (data / "other").mkdir()
    Image.new("RGB", (9, 9)).save(data / "other" / "0.png")
    assert locate_images(benchmark, data).digest == before


def test_a_network_for_each_sensor_shares_the_steps_and_sees_its_sources_alone(data, tmp_path):
    benchmark = read_benchmark(written(tmp_path))
    each = next(arm for arm in benchmark.arms if arm.name == "each")
    parts = benchmark.parts(each)
    assert [(part.name, benchmark.steps(part)) for part in parts] == [
        ("each-aerial", 6),
        ("each-sentinel-2", 6),
    ]
    assert [[s.name for s in benchmark.sources_of(part)] for part in parts] == [
        ["photos"],
        ["fields", "towns"],
    ]
    lines = describe_benchmark(benchmark, data, tmp_path / "out")
    assert lines[-3:] == [
        "run 1 of 3: routed, seed 0, 12 steps",
        "run 2 of 3: each-aerial, seed 0, 6 steps",
        "run 3 of 3: each-sentinel-2, seed 0, 6 steps",
    ]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark = read_benchmark(written(folder))
    with pytest.MonkeyPatch.context() as patch:  # each memory takes a process to measure, and seconds
        patch.setattr(cost_module, "peak_of", lambda *_: 300.0)
        return folder, run_benchmark(benchmark, data, folder / "out", train=here, device="cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_networks_for_each_sensor_are_one_row_beside_the_others(finished):
    folder, table = finished
    assert {row.arm for row in table.rows} == {"routed", "each"}
    parts = [
        json.loads((folder / "out" / f"each-{s}/seed0/result.json").read_text())
        for s in ("aerial", "sentinel-2")
    ]
    assert [len(part["scores"]) for part in parts] == [2, 4], "every fifth image is held out"
    row = next(row for row in table.rows if row.arm == "each")
    every = [scores["psnr"] for part in parts for scores in part["scores"].values()]
    assert row.scores["psnr"].mean == pytest.approx(np.mean(every))
    assert any("2 networks, aerial (6 steps), sentinel-2 (6 steps)" in note for note in table.notes)
    config = yaml.safe_load((folder / "out" / "each-aerial" / "seed0" / "fit.yaml").read_text())
    assert [source["name"] for source in config["data"]["sources"]] == ["photos"]


@pytest.mark.filterwarnings("ignore")
def test_groups_are_paired_by_image_with_the_flagship(finished):
    folder, table = finished
    names = [(group.name, group.degradation, group.images) for group in table.groups]
    assert names[:4] == [
        ("all aerial", "bilinear", 2), ("all aerial", "mtf", 2),
        ("all sentinel-2", "bilinear", 4), ("all sentinel-2", "mtf", 4),
    ]  # fmt: skip
    assert [name for name, of, _ in names[4:] if of == "mtf"] == ["photos", "fields", "towns"]
    ours = json.loads((folder / "out/routed/seed0/result.json").read_text())["by_degradation"]["mtf"]
    theirs = json.loads((folder / "out/each-aerial/seed0/result.json").read_text())["by_degradation"]["mtf"]
    group = next(group for group in table.groups if (group.name, group.degradation) == ("photos", "mtf"))
    expected = np.mean([theirs[image]["psnr"] - ours[image]["psnr"] for image in theirs])
    assert group.cells["each"].difference.mean == pytest.approx(expected)
    assert group.cells["routed"].difference is None


@pytest.mark.filterwarnings("ignore")
def test_every_form_of_the_table_has_the_groups(finished):
    _, table = finished
    titles, rows = group_cells(table)
    assert titles[-2:] == ["routed", "one a sensor"]
    assert len(rows) == len(table.groups) == 10
    for text in (markdown(table), latex(table), html(table)):
        assert "all sentinel-2" in text
        assert rows[0][-1] in text


@pytest.mark.filterwarnings("ignore")
def test_a_finished_benchmark_is_not_repeated_and_other_tests_score_it_again(finished, data):
    folder, _ = finished
    for changes, expected in (({}, 3), ({"limit": 1}, 0), ({"degradations": ["bicubic"]}, 0)):
        lines = describe_benchmark(read_benchmark(written(folder, **changes)), data, folder / "out")
        assert sum(line.endswith("is finished") for line in lines) == expected


def result(**changes):
    facts = dict.fromkeys(("hash", "arm", "scored", "weights", "commit", "hardware"), "")
    facts |= {"seed": 0, "steps": 3, "seconds": 2.0, "curve": [], "config": {}}
    return Result(**{**facts, **changes})


def psnr(**values):
    return {image: {"psnr": value} for image, value in values.items()}


def test_joined_results_are_those_of_all_images():
    parts = [
        result(scores=psnr(a=1.0), baseline={"psnr": 4.0}, by_degradation={"mtf": psnr(a=1.0)}),
        result(scores=psnr(b=2.0, c=3.0), baseline={"psnr": 1.0}, by_degradation={"mtf": psnr(b=2.0, c=3.0)}),
    ]
    joined = join("all", parts)
    assert (joined.arm, joined.steps, joined.seconds) == ("all", 6, 4.0)
    assert joined.of("psnr") == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert joined.baseline == {"psnr": pytest.approx(2.0)}
    assert joined.by_degradation == {"mtf": joined.scores}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": "photos"}, "leave train, test, degradation out"),
        ({"degradation": "mtf"}, "leave train, test, degradation out"),
        ({"sources": []}, "expected a list of sources"),
        ({"sources": "no_such_list"}, "no configuration of that name ships"),
        ({"sources": None}, "each: a network for each sensor needs sources"),
        ({"sources": [{"name": "photos", "folder": "photos"}]}, "and the sensor of each"),
        ({"degradations": ["foo"]}, "no degradation is called 'foo'"),
        ({"degradations": "mtf"}, "a list of names"),
        ({"limit": 0}, "limit=0"),
        ({"arms": {"routed": {**ARMS["each"], "each": "image"}}}, "sensor, or nothing"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path, changes, words):
    with pytest.raises(GeomoeError, match=words):
        read_benchmark(written(tmp_path, **changes))


def test_the_benchmark_of_several_sensors_has_the_arms_that_decide():
    benchmark = read_benchmark(find_config("several_sensors", "benchmarks"))
    assert [arm.name for arm in benchmark.arms] == [
        "routed_informed",
        "routed",
        "gated_informed",
        "mlp",
        "a_sensor",
    ]
    assert {source.sensor for source in benchmark.sources.sources} == {"sentinel-2", "landsat", "aerial"}
    assert len(benchmark.seeds) == 3
    steps = [sum(benchmark.steps(part) for part in benchmark.parts(arm)) for arm in benchmark.arms]
    assert len(set(steps)) == 1
    informed = [benchmark.model_config(arm).informed for arm in benchmark.arms]
    assert informed == [True, False, True, False, False]
