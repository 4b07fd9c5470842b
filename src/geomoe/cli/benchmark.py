"""``geomoe benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geomoe.cli.say import say
from geomoe.configs import find_config
from geomoe.errors import GeomoeError

__all__ = ["benchmark"]


@click.command()
@click.argument("config", metavar="CONFIG", required=False)
@click.option("--data", "root", type=click.Path(path_type=Path), default="data", show_default=True,
              help="Folder of the data.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results.  [default: runs/CONFIG]")
@click.option("--seeds", help="Such as 0,1,2; instead of those of CONFIG.")
@click.option("--only", metavar="ARM,...", help="Run these arms alone.")
@click.option("--against", metavar="ARM", help="Test the others against this arm, not CONFIG's flagship.")
@click.option("--device", default="auto", show_default=True, help="That scores and measures.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and write nothing.")
@click.option("--twins", metavar="MODEL", help="Run nothing; write the file of a model's controls to --out.")
@click.option("--sweep", "sweeps", metavar="OPTION=VALUE,...", multiple=True,
              help="With --twins: arms for values of an option, such as experts=2,4,8.")  # fmt: skip
def benchmark(
    config: str | None,
    root: Path,
    out: Path | None,
    seeds: str | None,
    only: str | None,
    against: str | None,
    device: str,
    dry_run: bool,
    twins: str | None,
    sweeps: tuple[str, ...],
) -> None:
    """Train the arms of CONFIG, a file or the name of one that ships, under one budget, and write one table.

    Goes on where it stopped: finished runs are not repeated. With --twins, the file of a model's controls is
    written: MODEL, a training configuration or weights, its dense twins, its gated twin, a frozen router and
    an ensemble, all by its own recipe.
    """
    if (twins is None) == (config is None):
        raise GeomoeError("give CONFIG to run a benchmark, or --twins MODEL --out FILE.yaml to write one")
    if twins is not None:
        _write_twins(twins, out, sweeps)
        return
    if sweeps:
        raise GeomoeError("--sweep goes with --twins; a benchmark that is run has its arms in its file")
    assert config is not None
    from geomoe.evaluation.benchmark import read_benchmark
    from geomoe.evaluation.benchmark.render import markdown
    from geomoe.evaluation.benchmark.run import describe_benchmark, run_benchmark

    file = find_config(config, "benchmarks")
    read = read_benchmark(file)
    if against is not None:
        read = read.against(against)
    out = Path("runs") / Path(file).stem if out is None else out
    numbers = None if seeds is None else _numbers(seeds)
    names = None if only is None else [name.strip() for name in only.split(",")]
    for name, one in read.under().items():
        if dry_run:
            say(*describe_benchmark(one, root, out / name, seeds=numbers, only=names))
            continue
        table = run_benchmark(
            one,
            root,
            out / name,
            seeds=numbers,
            only=names,
            device=device,
            say=lambda line: say(line, err=True),
        )
        say(*markdown(table).split("\n"))


def _write_twins(source: str, out: Path | None, sweeps: tuple[str, ...]) -> None:
    import yaml

    from geomoe.evaluation.benchmark.write import write_twins

    if out is None:
        raise GeomoeError("--twins: give the file to write by --out FILE.yaml")
    values: dict[str, list[Any]] = {}
    for sweep in sweeps:
        name, _, given = sweep.partition("=")
        if not (name and given):
            raise GeomoeError(f"--sweep {sweep}: expected OPTION=VALUE,..., such as experts=2,4,8")
        values[name] = [yaml.safe_load(value) for value in given.split(",")]
        if not all(isinstance(value, int | float) for value in values[name]):
            raise GeomoeError(f"--sweep {sweep}: expected numbers, such as experts=2,4,8")
    say(*(f"geomoe: note: {note}" for note in write_twins(source, out, values)), err=True)
    say(f"{out}: run it by geomoe benchmark {out} --data FOLDER")


def _numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise GeomoeError(f"--seeds {seeds}: expected whole numbers with commas, such as 0,1,2") from None
