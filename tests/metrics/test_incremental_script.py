"""The table of benchmarks/incremental.py, of answers that were written by hand."""

import pytest

from tests.scripts import load_script

SESSION = {"bay": 0, "field": 1, "town": 2}


@pytest.fixture(scope="module")
def script():
    return load_script("incremental")


def right(**shares):
    """Four images of each class, so many of them answered right."""
    return {f"{name}/{i}.png": i < count for name, count in shares.items() for i in range(4)}


def test_what_is_known_later_is_wrong_before(script):
    after = [right(bay=4), right(bay=2, field=3), right(bay=1, field=3, town=4)]
    assert script.matrix(after, SESSION).tolist() == [[1, 0, 0], [0.5, 0.75, 0], [0.25, 0.75, 1]]


def test_the_table_says_what_was_forgotten(script):
    after = [right(bay=4), right(bay=2, field=3), right(bay=1, field=3, town=4)]
    found = {"amoed": [after, after], "joint": [[right(bay=4, field=4, town=4)]]}
    system, joint = script.table(found, SESSION)
    assert len(system) == len(joint) == len(script.HEADS)
    assert system[1].startswith("0.667 ± ")
    mean = (1 + (0.5 + 0.75) / 2 + (0.25 + 0.75 + 1) / 3) / 3
    forgotten, gained = (0.75 + 0) / 2, (0 + 0.25 + 0) / 3
    assert system[2] == "", "the others are compared with it"
    assert joint[2].startswith("+0.333 [")
    assert system[3:] == [
        "0.250",
        "0.750",
        "1.000",
        f"{mean:.3f}",
        f"{forgotten:.3f}",
        "-0.375",
        f"{gained:.3f}",
    ]
    assert joint[3:] == ["1.000", "1.000", "1.000", "–", "–", "–", "–"]
