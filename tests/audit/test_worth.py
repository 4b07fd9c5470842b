"""What a benchmark of twins says of the mixture stands in its audit, if the benchmark is of these weights."""

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.audit.request import Request
from geomoe.audit.worth import worth
from geomoe.evaluation.statistics import mean_interval
from geomoe.files import write_csv
from tests.audit.made import check_drawn, codes, plan_of, subject

HEAD = ["arm", "seed", "item", "metric", "value", "twin", "of"]
RIGHT = [True] * 12 + [False] * 8
"""Of 20 images, which the model says the class of."""
TWINS = {"dense": "active", "wide": "parameters"}


def model():
    labels = torch.tensor(RIGHT).logical_not().long()  # the images are dark, which is class 0
    return subject(
        torch.zeros(20, 1, 8, 8), lambda x: [plan_of(torch.zeros(len(x)).long(), 2, (len(x),))], labels
    )


def of_moe(arm, twins):
    return [twins[arm], "moe"] if arm in twins else ["", ""]


def scored(tmp_path, arms, twins=TWINS, head=HEAD):
    """A table of arms by seed, each the scores of 20 images."""
    rows = [
        [arm, seed, str(i), "oa", float(value), *of_moe(arm, twins)][: len(head)]
        for arm, seeds in arms.items() for seed, of in enumerate(seeds) for i, value in enumerate(of)
    ]  # fmt: skip
    rows += [[arm, 0, "all", "oa", 0.5, *of_moe(arm, twins)][: len(head)] for arm in arms]
    write_csv(tmp_path / "scores.csv", [head, *rows])
    return tmp_path / "scores.csv"


OTHER = [False, True] * 10


@pytest.mark.parametrize(
    ("dense", "code", "level"),
    [
        ([[False] * 20] * 2, "beats_twin", "sound"),
        ([[True] * 20] * 2, "twin_is_better", "warning"),
        ([RIGHT, OTHER], "not_shown_to_beat_twin", "warning"),
    ],
)
def test_whether_the_mixture_beats_its_twin_is_told_with_its_interval(dense, code, level, tmp_path):
    moe = [OTHER, RIGHT]
    section = worth(model(), scored(tmp_path, {"dense": dense, "moe": moe}))
    assert codes(section) == {code: level}
    expected = mean_interval(np.array(moe, float) - np.array(dense, float))
    found = section.data["twins"]["active"]
    assert found["gain"] == pytest.approx(expected.mean)
    assert found["interval_95"] == pytest.approx([expected.low, expected.high])
    assert "over 2 seeds and 20 samples" in section.findings[0].text
    assert "dense twin of equal active cost" in section.findings[0].text
    check_drawn(section)


def test_the_twin_of_equal_active_cost_comes_first_and_others_are_notes(tmp_path):
    arms = {"wide": [[True] * 20], "dense": [[False] * 20], "moe": [RIGHT], "forest": [OTHER]}
    section = worth(model(), scored(tmp_path, arms))
    said = [(finding.level, finding.code) for finding in section.findings]
    assert said == [("sound", "beats_twin"), ("note", "twin_is_better"), ("note", "one_seed")]
    assert list(section.data["twins"]) == ["active", "parameters"]


def test_seeds_that_were_tested_on_samples_of_their_own_have_one_mean_each(tmp_path):
    path = scored(tmp_path, {"dense": [OTHER], "moe": [RIGHT]})
    rows = [["moe", 1, "b", "oa", 1.0, "", ""], ["moe", 1, "c", "oa", 0.5, "", ""]]
    rows += [["dense", 1, "b", "oa", 0.0, "active", "moe"], ["dense", 1, "c", "oa", 1.0, "active", "moe"]]
    write_csv(path, [*(line.split(",") for line in path.read_text().splitlines()), *rows])
    found = worth(model(), path).data["twins"]["active"]
    expected = mean_interval(np.array([[np.mean(RIGHT) - 0.5], [0.25]]))
    assert (found["gain"], found["seeds"], found["samples"]) == (pytest.approx(expected.mean), 2, 22)
    assert found["interval_95"] == pytest.approx([expected.low, expected.high])


def test_one_score_of_each_decides_nothing(tmp_path):
    one = model()
    one.samples = type(one.samples)("made", one.samples.samples[:1])
    section = worth(one, scored(tmp_path, {"moe": [[1.0]], "dense": [[0.5]]}))
    assert codes(section) == {"not_shown_to_beat_twin": "warning", "one_seed": "note"}
    assert section.data["twins"]["active"]["interval_95"] is None


@pytest.mark.parametrize(
    ("arms", "twins", "head", "said"),
    [
        ({"moe": [OTHER], "dense": [RIGHT]}, TWINS, HEAD, "no twin of dense, which made is"),
        ({"moe": [OTHER], "dense": [OTHER]}, TWINS, HEAD, "does not hold made: .* moe, seed 0, on 50% of 20"),
        ({"moe": [RIGHT], "dense": [OTHER]}, {}, HEAD, "no twin of moe"),
        ({"moe": [RIGHT], "dense": [OTHER]}, TWINS, HEAD[:-2], "no twin of moe"),
        ({"moe": [RIGHT], "dense": [[], OTHER]}, TWINS, HEAD, "no seed and sample in common"),
        ({"moe": [RIGHT]}, TWINS, HEAD[:-3], "no table of scores"),
    ],
)
def test_a_table_that_is_not_of_these_weights_is_refused(arms, twins, head, said, tmp_path):
    with pytest.raises(GeomoeError, match=said):
        worth(model(), scored(tmp_path, arms, twins, head))


def test_other_samples_other_metrics_and_other_files_are_refused(tmp_path):
    path = tmp_path / "scores.csv"
    for row, said in ((["moe", 0, "a", "oa", 1, "", ""], "other samples than made's"),
                      (["moe", 0, "0", "f1", 1, "", ""], "no scores in OA"),
                      (["moe", 0, "0", "oa", "much", "", ""], "no table of scores")):  # fmt: skip
        write_csv(path, [HEAD, row])
        with pytest.raises(GeomoeError, match=said):
            worth(model(), path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GeomoeError, match="no table of scores"):
        worth(model(), path)
    with pytest.raises(GeomoeError, match="cannot be read"):
        worth(model(), tmp_path / "none.csv")


def test_it_is_asked_for_by_an_option():
    asked = Request("mine", "data", benchmark="scores.csv")
    assert asked.command() == "geomoe audit mine --data data --out report --benchmark scores.csv"
