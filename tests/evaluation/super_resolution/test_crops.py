import math

import pytest
import torch

from geomoe import GeomoeError
from geomoe.evaluation.super_resolution.crops import check_inside, cut, most_different, parse_crop, score_crop
from geomoe.metrics.image import psnr, to_luma
from geomoe.metrics.protocol import get_protocol
from geomoe.pipeline.tiles import Box


def noise(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_a_crop_is_four_whole_numbers():
    assert parse_crop("3, 4,50,6") == Box(3, 4, 50, 6)
    for text in ("", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1.5,2,3,4"):
        with pytest.raises(GeomoeError, match="expected X,Y,W,H"):
            parse_crop(text)


def test_a_crop_lies_inside_the_image():
    check_inside(Box(0, 0, 30, 20), 30, 20)
    for crop in (Box(-1, 0, 5, 5), Box(0, 0, 0, 5), Box(0, 16, 5, 5), Box(26, 0, 5, 5)):
        with pytest.raises(GeomoeError, match="not inside the high-resolution image of 30 x 20"):
            check_inside(crop, 30, 20)


def test_a_cut_has_x_to_the_right_and_y_down():
    image = torch.arange(60).view(1, 6, 10)
    assert cut(image, Box(7, 2, 3, 1)).tolist() == [[[27, 28, 29]]]


def test_the_most_different_crop_is_where_one_image_leaves_the_others():
    base = noise(0, 3, 150, 140)
    odd = base.clone()
    odd[:, 60:95, 20:55] += 0.3  # a square of 35, a quarter of 140
    assert most_different([base, odd, base]) == Box(20, 60, 35, 35)
    assert most_different([base, base]) == Box(0, 0, 35, 35), "of equals the upper left"


@pytest.mark.parametrize(
    ("height", "width", "side"), [(40, 200, 32), (20, 50, 20), (400, 300, 75), (1, 1, 1)]
)
def test_the_side_of_a_chosen_crop(height, width, side):
    found = most_different([noise(0, 1, height, width), noise(1, 1, height, width)])
    assert (found.width, found.height) == (side, side)
    check_inside(found, width, height)


@pytest.mark.parametrize("name", ["mfg_hmoe", "ttst", "hsenet"])
def test_the_whole_image_as_a_crop_is_scored_as_the_image(name):
    rules, truth = get_protocol(name), noise(0, 3, 40, 50)
    result = truth + 0.05 * noise(1, 3, 40, 50)
    assert score_crop(rules, result, truth, 4, Box(0, 0, 50, 40)) == rules.score(result, truth, 4)


def test_the_border_that_is_cut_is_the_image_s():
    truth, rules = noise(0, 3, 60, 60), get_protocol("mfg_hmoe")
    result = truth.clone()
    result[:, 4:56, 4:56] += 0.1 * noise(1, 3, 52, 52)
    result[:, :4] = 0  # nonsense where the protocol does not look
    a, b = ((x * 255).round().clamp(0, 255) for x in (result, truth))

    def luma_psnr(y, x):
        return psnr(to_luma(a[:, y, x]), to_luma(b[:, y, x]))

    inner = score_crop(rules, result, truth, 4, Box(10, 20, 16, 12))
    assert inner[0] == pytest.approx(luma_psnr(slice(20, 32), slice(10, 26))), "nothing is cut in the middle"
    edge = score_crop(rules, result, truth, 4, Box(0, 0, 20, 16))
    assert edge[0] == pytest.approx(luma_psnr(slice(4, 16), slice(4, 20)))
    assert math.isfinite(edge[1])


def test_crops_smaller_than_a_window_of_ssim_have_no_score():
    truth, rules = noise(0, 3, 60, 60), get_protocol("mfg_hmoe")
    assert score_crop(rules, truth, truth, 4, Box(20, 20, 10, 30)) is None
    assert score_crop(rules, truth, truth, 4, Box(0, 20, 14, 30)) is None, "four of 14 columns are border"
    assert score_crop(rules, truth, truth, 4, Box(20, 20, 11, 30)) == (100.0, pytest.approx(1))
