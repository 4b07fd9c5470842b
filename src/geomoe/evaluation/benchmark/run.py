"""A whole benchmark: every run that is not finished, then what a tile costs, then the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from statistics import fmean

import torch

from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark import runs
from geomoe.evaluation.benchmark.config import Benchmark
from geomoe.evaluation.benchmark.cost import measure_costs
from geomoe.evaluation.benchmark.curves import draw_curves, draw_ranks, draw_scaling
from geomoe.evaluation.benchmark.images import Images
from geomoe.evaluation.benchmark.render import html, latex, markdown
from geomoe.evaluation.benchmark.result import Result, join, write_json, write_scores
from geomoe.evaluation.benchmark.runs import Run, plan_runs
from geomoe.evaluation.benchmark.table import Table, make_table
from geomoe.evaluation.evaluators import evaluator
from geomoe.evaluation.hardware import hardware
from geomoe.files import overlap, write_text
from geomoe.lock import BusyError, locked
from geomoe.metrics.measures import show
from geomoe.pipeline.runner import pick_device

__all__ = ["describe_benchmark", "run_benchmark"]

_PICTURES = ("curves.png", "scaling.png", "ranks.png")
_WRITTEN = ("table.json", "table.md", "table.tex", "table.html", "scores.csv", *_PICTURES)


def locate_data(benchmark: Benchmark, root: Path) -> Images:
    """What a benchmark is trained and scored on, below ``root``; raises GeomoeError where it is not there."""
    return evaluator(benchmark.task).benchmark_data(benchmark, root)


def describe_benchmark(
    benchmark: Benchmark,
    root: Path,
    out: Path,
    *,
    seeds: Iterable[int] | None = None,
    only: Iterable[str] | None = None,
) -> list[str]:
    """What :func:`run_benchmark` would do, a line for each run; nothing is written.

    Raises:
        GeomoeError: as :func:`run_benchmark`.
    """
    chosen = benchmark.choose(seeds, only)
    lines = []
    images = locate_data(benchmark, root)
    planned = plan_runs(chosen, images, out)
    for arm in chosen.arms:
        if arm.features is not None:
            lines.append(f"{arm.name}: {arm.model} on {arm.features}")
            continue
        count = sum(p.numel() for p in images.model(arm).parameters())
        lines.append(f"{arm.name}: {arm.model}, {count:,} parameters")
    for i, run in enumerate(planned, 1):
        lines.append(f"run {i} of {len(planned)}: {run.name}, {_stands(run)}")
    return lines


def run_benchmark(
    benchmark: Benchmark,
    root: Path,
    out: Path,
    *,
    seeds: Iterable[int] | None = None,
    only: Iterable[str] | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    train: Callable[[Path, Path | None], None] | None = None,
) -> Table:
    """Carry out what is not finished yet, and write the table of all that is.

    ``out`` gets a folder for every arm and seed, ``table.md``, ``.tex``, ``.json``, ``.html``,
    ``scores.csv``, ``curves.png``, and ``scaling.png`` and ``ranks.png`` where there is a sweep, or arms to
    rank. An interrupted run continues at the last whole epoch, a finished one is not repeated, and one whose
    configuration or images changed starts over. One that another process works on is left to it, so that
    several processes share a benchmark; the last to end writes the table of all.

    Args:
        benchmark: from :func:`read_benchmark`.
        root: folder of the data.
        out: folder of the results.
        seeds: instead of those of the benchmark.
        only: names of arms to run; the table holds the others too where they are finished.
        device: that scores and measures; training chooses by ``trainer.accelerator``.
        say: given a line when a run begins or ends.
        train: given the configuration file and the checkpoint to resume; a process of ``geomoe fit`` if
            not given.

    Raises:
        GeomoeError: a model, option or image that is not there, or runs that failed; the table of the others
            is written first.
        BusyError: other processes are working on all of it, and nothing is finished yet.
    """
    whole, chosen = benchmark.choose(seeds, None), benchmark.choose(seeds, only)
    place = pick_device(device)
    images = locate_data(benchmark, root)
    planned = plan_runs(chosen, images, out)
    if found := overlap([out / name for name in _WRITTEN], [root]):
        raise GeomoeError(f"{found[0]} is a file among the images; give another folder by --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GeomoeError(f"{out} cannot be made: {error.strerror}; give another folder by --out") from error
    failed = []
    for i, run in enumerate(planned, 1):
        here = f"run {i} of {len(planned)}: {run.name}"
        try:
            with run.alone():
                if run.result is not None:
                    say(f"{here}, is finished")
                    continue
                if run.waits:
                    say(f"{here}, waits for its members")
                    continue
                say(f"{here}, {_stands(run)}{_left(planned[i - 1 :], planned)}")
                try:
                    result = run.carry_out(train or runs.train, device, say)
                except GeomoeError as error:
                    failed.append(run.name)
                    say(f"{run.name} failed: {error}")
                    continue
        except BusyError:
            say(f"{here}, is left to the process that is working on it")
            continue
        means = {name: result.mean(name) for name in result.baseline}
        say(f"{run.name}: {show(means)} on {result.scored}")
    with _in_turn(out, say):
        finished = _finished(whole, images, out)
        if finished:
            say("measuring the cost of a tile, all arms in turns")
            table = _write(whole, finished, images, out, place, say)
    if failed:
        raise GeomoeError(
            f"{len(failed)} of {len(planned)} runs failed: {'; '.join(failed)}; run again to continue"
        )
    if not finished:
        raise BusyError(
            f"other processes work on all {len(planned)} runs in {out}; the last to end writes the table"
        )
    return table


@contextmanager
def _in_turn(out: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One process at a time counts what is finished and writes it: no table is replaced by an older one."""
    with ExitStack() as held:
        for attempt in count():
            try:
                held.enter_context(locked(out / ".table", "another process writes the table"))
                break
            except BusyError as busy:
                if attempt == 0:
                    say(f"{busy}; waiting for it")
                time.sleep(0.5)
        yield


def _stands(run: Run) -> str:
    if run.result is not None:
        return "is finished"
    if run.changed:
        return f"starts over: its configuration or images changed; what was there is kept beside {run.folder}"
    if run.members:
        return f"scores what its {len(run.members)} members say together"
    if run.arm.weights is not None:
        return "is scored as it is"
    if run.arm.features is not None:
        return f"{run.arm.model} on {run.arm.features}"
    done = run.trained
    return f"continues at step {done} of {run.steps}" if done else f"{run.steps} steps"


def _left(ahead: list[Run], planned: list[Run]) -> str:
    """Time that the runs ahead will take, by those that are finished: of the arm, or of any arm a step."""
    done = [
        (run.arm.name, result)
        for run in planned
        if (result := run.result) is not None and run.steps and not run.members
    ]
    if not done:
        return ""
    usual = fmean(result.seconds / result.steps for _, result in done)
    seconds = 0.0
    for run in ahead:
        if run.result is None and not run.members:
            mine = [result.seconds / result.steps for name, result in done if name == run.arm.name]
            steps = run.steps
            with suppress(GeomoeError, OSError):  # another process may be at it, and move files
                steps -= run.trained
            seconds += steps * (fmean(mine) if mine else usual)
    return f"; about {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


def _finished(benchmark: Benchmark, images: Images, out: Path) -> dict[str, list[Run]]:
    """By arm; of one that is several networks, those of the seeds with which all are finished."""
    finished = {}
    for arm in benchmark.arms:
        try:
            planned = plan_runs(benchmark.choose(None, [arm.name]), images, out)
        except GeomoeError:  # a model that is not there and was left out
            continue
        lacking = {run.seed for run in planned if run.result is None}
        # Of an ensemble the members are no results of the arm.
        if done := [
            run for run in planned if run.seed not in lacking and bool(run.members) == (arm.members > 1)
        ]:
            finished[arm.name] = done
    return finished


def _results(arm: str, done: list[Run]) -> list[Result]:
    """One for each seed."""
    by_seed: dict[int, list[Result]] = {}
    for run in done:
        if (result := run.result) is not None:
            by_seed.setdefault(run.seed, []).append(result)
    return [join(arm, parts) for parts in by_seed.values()]


def _write(
    benchmark: Benchmark,
    finished: dict[str, list[Run]],
    images: Images,
    out: Path,
    device: torch.device,
    say: Callable[[str], None],
) -> Table:
    results = {name: _results(name, done) for name, done in finished.items()}
    networks = {name: done[0] for name, done in finished.items() if done[0].arm.features is None}
    weights = {name: (run.members or (run,))[0].folder / "best.safetensors" for name, run in networks.items()}
    costs = measure_costs(weights, images.tile(), device)
    costs = {name: cost.times(benchmark.arm(name).members) for name, cost in costs.items()}
    table = make_table(benchmark, results, costs, hardware(device))
    pictures = _draw(table, results, out, say)
    write_json(out / "table.json", table.as_dict())
    twins = {row.arm: (row.kind, row.beside) for row in table.rows if row.kind}
    write_scores(out / "scores.csv", [result for done in results.values() for result in done], twins)
    page = html(table, pictures)
    for name, text in {"table.md": markdown(table), "table.tex": latex(table), "table.html": page}.items():
        write_text(out / name, text)
    return table


def _draw(
    table: Table, results: dict[str, list[Result]], out: Path, say: Callable[[str], None]
) -> dict[str, Path]:
    """Pictures of a table, by what they show."""
    trained = {row.label: results[row.arm] for row in table.rows if results[row.arm][0].curve}
    drawn: dict[str, tuple[str, Callable[[Path], None]]] = {}
    if trained:
        drawn["curves.png"] = ("Validation by step", lambda path: draw_curves(path, trained, table.ranks))
    if any(row.at for row in table.rows):
        words = "Scores of the sweep with their intervals, by its first option and by what a tile costs"
        drawn["scaling.png"] = (words, lambda path: draw_scaling(path, table.rows, table.ranks))
    if (ranking := table.ranking) is not None:
        labels = [row.label for row in table.rows]
        words = "Mean ranks, 1 for the best; no two arms under one bar are shown to differ"
        drawn["ranks.png"] = (words, lambda path: draw_ranks(path, labels, ranking))
    for name in _PICTURES:
        (out / name).unlink(missing_ok=True)
    pictures: dict[str, Path] = {}
    try:
        for name, (words, draw) in drawn.items():
            draw(out / name)
            pictures[words] = out / name
    except ModuleNotFoundError:
        say("no curves.png: matplotlib is not there; install it by: pip install 'geomoe[demo]'")
    return pictures
