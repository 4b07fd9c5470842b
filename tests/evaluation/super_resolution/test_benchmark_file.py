"""Files of benchmarks, and what is found wrong before anything is run."""

from pathlib import Path

import pytest
import torch

from geomoe import GeomoeError, create_model, list_models
from geomoe.cli.main import main
from geomoe.configs import shipped
from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.evaluation.benchmark.run import describe_benchmark
from tests.evaluation.super_resolution.tiny import FILE, here, written

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


# The full tables build the largest networks, by the same arms as these.
FULL = ("table1_ucmerced_x2", "table1_ucmerced_x4", "table2_aid_x2", "table2_aid_x4", "table3_full")
CONFIGS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in FULL else [])
    for path in shipped("benchmarks").values()
]


@pytest.mark.parametrize("config", CONFIGS)
def test_shipped_benchmarks_are_understood(config):
    """Arms of models that are registered can be built; the others are named when they are run."""
    benchmark = read_benchmark(config)
    assert len(benchmark.arms) >= 2
    for arm in benchmark.arms:
        if arm.model in list_models():
            options = benchmark.model_options(arm)
            if things := options.get("things"):
                options["classes"] = (*things, "other")  # which the data know
            with torch.device("meta"):
                create_model(arm.model, **options)
        else:
            with pytest.raises(GeomoeError, match=f"arm {arm.name}: no model is called"):
                benchmark.model_config(arm)


def test_a_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(GeomoeError, match="cannot be made"):
        run_benchmark(read_benchmark(written(tmp_path)), data, tmp_path / "out", train=here)
