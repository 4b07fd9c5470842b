"""What a configuration may do."""

import json

import pytest
import yaml

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.configs import find_config, shipped
from geomoe.evaluation.benchmark import read_benchmark
from geomoe.tasks.bounded_yaml import check_yaml, load_yaml
from geomoe.tasks.fit import fit

from .test_fit import folder, train  # noqa: F401

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    "given", ["mfg_hmoe_light_x4", "mfg_hmoe_light_x4.yaml", "configs/mfg_hmoe_light_x4.yaml"]
)
def test_a_configuration_that_ships_goes_by_its_name(tmp_path, monkeypatch, capsys, given):
    monkeypatch.chdir(tmp_path)
    for args in (["--config", given], [f"--config={given}"], ["-c", given]):
        with pytest.raises(SystemExit) as stop:
            fit([*args, "--print_config"])
        assert stop.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)["model"]["model"] == "mfg_hmoe_light"
    (tmp_path / "mfg_hmoe_light_x4").write_text("mine")
    assert find_config("mfg_hmoe_light_x4") == "mfg_hmoe_light_x4"


def test_a_benchmark_that_ships_goes_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("flagship", "configs/benchmarks/flagship.yaml"):
        assert (
            read_benchmark(find_config(given, "benchmarks")).title
            == read_benchmark(shipped("benchmarks")["flagship"]).title
        )
    with pytest.raises(GeomoeError, match=r"no file flagshop, and no configuration .* there are: .*flagship"):
        find_config("flagshop", "benchmarks")
    with pytest.raises(GeomoeError, match=r"there are: .*mfg_hmoe_light_x4"):
        fit(["--config", "mfg_hmoe_light_x5"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("trainer", {"callbacks": [{"class_path": "os.system", "init_args": {"command": "touch MARK"}}]}),
        ("trainer", {"callbacks": [{"class_path": "subprocess.Popen", "init_args": {"args": "touch MARK"}}]}),
        ("trainer", {"callbacks": [{"class_path": "pathlib.Path", "init_args": {}}]}),
        ("trainer", {"callbacks": [{"class_path": "evil.Callback"}]}),
        ("trainer", {"callbacks": [{"class_path": "lightning.pytorch.callbacks.LambdaCallback",
                                    "init_args": {"setup": "evil.run"}}]}),
        ("trainer", {"callbacks": [{"class_path": "lightning.pytorch.callbacks.LambdaCallback",
                                    "init_args": {"setup": "builtins.print"}}]}),
        ("trainer", {"callbacks": [{"class_path": "geomoe.tasks.fit.sys.exit"}]}),
        ("trainer", {"callbacks": [{"class_path": "geomoe.tasks.weights.subprocess.Popen"}]}),
        ("trainer", {"logger": {"class_path": "evil.Logger"}}),
        ("trainer", {"strategy": {"class_path": "evil.Strategy"}}),
        ("trainer", {"profiler": {"class_path": "evil.Profiler"}}),
        ("optimizer", {"class_path": "evil.Optimizer"}),
        ("lr_scheduler", {"class_path": "evil.Scheduler"}),
    ],
)  # fmt: skip
def test_nothing_is_imported_from_elsewhere(folder, tmp_path, monkeypatch, capsys, where, what):  # noqa: F811
    (tmp_path / "evil.py").write_text(
        "open('MARK', 'w')\nfrom lightning.pytorch.callbacks import Callback\nrun = Callback\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump({where: what}))
    with pytest.raises(SystemExit) as stop:
        train(folder, tmp_path / "run", "--config=evil.yaml")
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "MARK").exists()


@pytest.mark.filterwarnings("ignore")
def test_callbacks_and_loggers_of_lightning_are_there(folder, tmp_path):  # noqa: F811
    train(
        folder, tmp_path, "--trainer.max_steps=3", "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/psnr",
        "--trainer.logger={class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: "
        f"{tmp_path}}}}}",
    )  # fmt: skip
    assert list(tmp_path.rglob("metrics.csv"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]\n", "[" * 5000, "a: " + "{b: " * 2000, "a: 2001-99-99\n"])
def test_a_configuration_of_no_bounds_is_refused_in_one_line(tmp_path, capsys, text):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    for args in (["fit", "--config", str(path)], ["benchmark", str(path)], ["fit", "--trainer", str(path)]):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert stop.value.code in (1, 2)
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        assert len(said) < 1000
        assert said.startswith("geomoe: error: ")


def test_aliases_that_are_bounded_are_written_out():
    text = "a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}\n"
    assert load_yaml(text) == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 3}}
    check_yaml("a: &a " + "x" * 999_000)
    with pytest.raises(yaml.YAMLError, match="more than 1000000 characters"):
        check_yaml("a: &a " + "x" * 500_000 + "\nb: [*a, *a]\n")
    with pytest.raises(yaml.YAMLError, match="nested more than 50 deep"):
        check_yaml("[" * 51 + "]" * 51)


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_is_a_local_file(folder, tmp_path, capsys):  # noqa: F811
    for address in ("http://127.0.0.1:9/x.yaml", "memory://x.yaml", "s3://bucket/x.yaml"):
        with pytest.raises(SystemExit):
            train(folder, tmp_path, f"--config={address}")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("geomoe: error: ")


def test_a_source_that_does_not_fit_is_told_in_few_words(tmp_path, capsys):
    many = [{"name": f"n{i}", "folder": "x" * 80} for i in range(30)]
    path = tmp_path / "c.yaml"
    path.write_text(
        json.dumps({"data": {"root": str(tmp_path), "sources": [*many, {"name": "a", "shar": 1}]}})
    )
    with pytest.raises(SystemExit):
        fit(["--config", str(path)])
    said = capsys.readouterr().err
    assert "shar" in said
    assert len(said) < 700
