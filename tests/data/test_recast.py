"""Images with classes made coarser, and one class told from all others."""

import numpy as np
import pytest
import torch

from geomoe.data.labelled import Labelled, Whole
from geomoe.data.legend import IGNORED, Legend
from geomoe.data.recast import against_rest, reduced
from geomoe.errors import GeomoeError

LEGEND = Legend(("land", "road", "water"))


def found(image, mask, valid=None, sensors=None):
    one = Whole("a/0", torch.as_tensor(image), torch.as_tensor(mask, dtype=torch.int16), valid)
    return Labelled("made", [one], LEGEND, "unit", sensors=sensors or {})


def test_squares_are_means_of_what_is_valid_and_of_the_commonest_class():
    image = torch.tensor([[[1.0, 3, 7, 9, 5], [5, 7, 100, 100, 5]]])
    mask = [[0, 1, 2, 1, 0], [1, IGNORED, IGNORED, IGNORED, 0]]
    valid = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 1]], dtype=bool)
    [one] = reduced(found(image, mask, valid), 2).images
    assert one.image.tolist() == [[[4.0, 8.0]]]
    assert one.mask.tolist() == [[1, 1]]  # of a road and a water, the first
    assert one.valid.tolist() == [[True, True]]


def test_a_square_without_class_or_measurement_has_none():
    [one] = reduced(
        found(
            torch.full((1, 2, 2), 200, dtype=torch.uint8), torch.full((2, 2), IGNORED), np.zeros((2, 2), bool)
        ),
        2,
    ).images
    assert (one.image.dtype, one.image.tolist(), one.mask.tolist()) == (torch.uint8, [[[0]]], [[IGNORED]])
    assert not one.valid.any()


def test_one_class_against_the_rest():
    two = against_rest(found(torch.zeros(1, 1, 4), [[0, 1, 2, IGNORED]]), "road")
    assert two.legend.names == ("other", "road")
    assert two.images[0].mask.tolist() == [[0, 1, 0, IGNORED]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda of: against_rest(of, "tree"),
            "data.against_rest='tree': made has the classes land; road; water",
        ),
        (lambda of: reduced(of, 3), r"data.reduce=3: a/0 has \[1, 4\] pixels"),
    ],
)
def test_what_cannot_be_is_said(change, said):
    with pytest.raises(GeomoeError, match=said):
        change(found(torch.zeros(1, 1, 4), [[0, 1, 2, 0]]))


def test_several_sensors_stay_as_they_are():
    with pytest.raises(GeomoeError, match="of several sensors"):
        reduced(found(torch.zeros(2, 2, 2), torch.zeros(2, 2), sensors={"a": 1, "b": 1}), 2)
