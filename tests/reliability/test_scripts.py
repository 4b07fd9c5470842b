"""The scripts whose figures are in the documentation, on a few cases each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "reliability"


def _run(script: str, *args: object) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / script), *map(str, args), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_killed_jobs_end_with_the_bytes_of_one_left_alone() -> None:
    found = _run("kill.py", "--jobs", 2, "--size", 90)
    assert (found["equal"], found["left_over"]) == (2, 0)
    assert found["kills"] >= 6


def test_a_full_disk_is_an_error_and_leaves_nothing() -> None:
    found = _run("full_disk.py", "--points", 4)
    assert (found["jobs"], found["errors"], found["wrong"]) == (8, 8, 0)


def test_hostile_paths_and_files_are_refused() -> None:
    found = _run("hostile.py")
    assert found["cases"] == found["refused"] >= 190
    assert found["leaks"] == found["connections"] == found["wrong"] == 0


@pytest.mark.parametrize("seed", [1])
def test_mutated_inputs_are_errors_or_results(seed: int) -> None:
    found = _run("fuzz.py", "--inputs", 120, "--seed", seed)
    assert found["errors"] + found["results"] == found["inputs"]
    assert found["crashes"] == found["hangs"] == found["other_errors"] == found["wrong"] == 0
    assert min(found["errors"], found["results"]) > 5


def test_a_cluster_that_loses_a_worker_and_its_scheduler_does_each_scene_once() -> None:
    found = _run("cluster.py", "--scenes", 5, "--size", 250)
    assert found["scenes"] == found["done"] == found["told"] == found["equal"] == 5
    assert found["left_over"] == 0


def test_nights_that_are_cut_or_have_no_locks_end_well_when_begun_again() -> None:
    found = _run("attack_nights.py", "--kinds", "commits,locks", "--every", 11, "--tries", 4)
    assert found["failures"] == 0
    assert found["commits"] >= 16
    assert found["locks"] == 4


def test_files_under_attack_are_neither_written_through_nor_over() -> None:
    kinds = "writes,links,overlaps,changes,twins,beside"
    found = _run("attack_files.py", "--kinds", kinds, "--every", 13)
    assert found["failures"] == 0
    assert min(found[kind] for kind in kinds.split(",")) >= 1
    assert found["tries"] >= 25


def test_training_under_attack_keeps_what_it_wrote_and_says_what_is_wrong() -> None:
    kinds = "steps,flips,numbers,damaged"
    found = _run("attack_training.py", "--kinds", kinds, "--every", 29, "--tries", 1)
    assert found["failures"] == 0
    assert found["flips"] == 50
    assert min(found[kind] for kind in kinds.split(",")) >= 1
    assert found["tries"] >= 55


def test_inputs_take_no_more_than_they_may_and_nothing_else() -> None:
    found = _run("attack_inputs.py", "--every", 61)
    assert found["tries"] >= 10
    assert found["failures"] == found["connections"] == 0
    assert {"budget", "grids", "pipes", "escapes", "environment"} <= found.keys()
