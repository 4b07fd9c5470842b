"""What all tasks have in common."""

import pytest

from geomoe.metrics.measures import MEASURES, measure, show
from geomoe.tasks.options import options_of
from geomoe.tasks.super_resolution import SuperResolution
from geomoe.tasks.super_resolution_data import SuperResolutionData


def test_options_are_those_of_the_family_and_of_the_base():
    found = options_of(SuperResolution)
    assert {"model", "scale", "protocol", "learning_rate", "seed"} <= found.keys()
    assert "recipe" not in found
    assert found["model"].default == "mfg_hmoe_light"  # the family's, not the base's
    assert options_of(SuperResolutionData)["steps_per_epoch"].default == 500
    assert "prepare_data" not in options_of(SuperResolutionData)


def test_a_gain_is_an_improvement_whichever_end_is_better():
    assert measure("psnr").gain(31, 30) == 1
    assert measure("sam").gain(31, 30) == -1
    assert measure("of_my_own").gain(2, 1) == 1
    assert {one.best for one in MEASURES.values()} == {"max", "min"}


def test_scores_are_shown_with_their_titles_units_and_digits():
    assert (
        show({"psnr": 30.12345, "ssim": 0.9, "of_my_own": 1})
        == "PSNR 30.123 dB, SSIM 0.9000, of_my_own 1.0000"
    )
    assert measure("psnr").text(0.5, sign=True) == "+0.500 dB"


def test_an_option_that_no_class_has_is_an_error():
    with pytest.raises(TypeError, match="learning_rat"):
        SuperResolution(learning_rat=1)
