"""SPT: the published function, and what holds whatever its weights."""

import pytest
import torch
import torch.nn.functional as F

import geomoe
from geomoe.models.super_resolution.spt import Pyramid, PyramidAttention
from tests.models.golden import check, golden, image, seen
from tests.models.sizes import tiny


def test_it_is_the_published_one():
    model = golden("spt", dtype=torch.float64, scale=4, pooling="transposed")
    layer = model.groups[0].layers[0]
    given = []
    layer.branch.register_forward_hook(lambda module, args, result: given.append(result - args[0]))
    found = seen(
        model,
        image(3, 16, 24),
        norm_in=model.norm_in,
        attention=layer.attention,
        layer=layer,
        fusion=model.groups[0].fusion,
        group=model.groups[0],
        norm_out=model.norm_out,
        shuffled=model.head[2],
    )
    check(found["norm_in"], 0.006897, 1.021343, -1.180545, 0.526800, 0.129395, tokens=True)
    check(found["attention"], 0.023955, 0.223249, 0.099723, 0.077758, -0.151971, tokens=True)
    check(given[0], -0.001562, 0.064566, 0.018659, 0.000494, -0.037671, tokens=True)
    check(found["layer"], 0.009708, 0.667234, -2.035602, -0.487005, -0.066602, tokens=True)
    check(found["fusion"], 0.007827, 0.260099, 0.060087, 0.027803, 0.148493, tokens=True)
    check(found["group"], 0.014725, 1.033628, -1.120458, 0.554604, 0.277888, tokens=True)
    check(found["norm_out"], -0.005900, 1.042748, -0.862942, 0.829548, 0.627618, tokens=True)
    check(found["shuffled"], 0.010329, 0.098040, -0.037785, -0.106348, 0.085989)
    check(found["image"], 0.972955, 0.200057, 0.392283, 1.372705, 0.979498)


def test_at_twice_the_size_it_is_the_published_one():
    found = seen(golden("spt", dtype=torch.float64, scale=2, pooling="transposed"), image(3, 16, 24))
    check(found["image"], 0.974660, 0.205107, 0.407671, 1.299583, 0.959747)


@pytest.mark.parametrize("pooling", ["image", "transposed"])
def test_of_a_square_both_ways_of_pooling_are_the_published_one(pooling):
    found = seen(golden("spt", dtype=torch.float64, scale=4, pooling=pooling), image(3, 16, 16))
    check(found["image"], 0.970885, 0.201400, 0.408911, 0.972057, 0.875086)


def test_the_pyramid_is_the_sum_of_mean_and_maximum_written_out():
    pyramid, x = Pyramid(4, (2, 8), transposed=False).double(), torch.randn(1, 8, 12, 4).double()
    image_ = x[0].permute(2, 0, 1)
    expected = []
    for ratio, conv, (rows, columns) in zip((2, 8), pyramid.convs, ((4, 6), (1, 2)), strict=True):
        cells = image_.unfold(1, 8 // rows, 8 // rows).unfold(2, 12 // columns, 12 // columns)
        assert cells.shape[1:3] == (round(8 / ratio), round(12 / ratio))  # 1.5 to the even number
        pooled = cells.mean((-1, -2)) + cells.amax((-1, -2))
        expected.append((pooled + conv(pooled)).flatten(1).T)
    torch.testing.assert_close(pyramid(x)[0], torch.cat(expected))


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (32, 16), (5, 13)])
def test_no_image_is_scrambled_unless_asked_for(size):
    """Pooling knows no place, so an image on its side gives the cells of the image on their side."""
    x = torch.randn(2, *size, 4)
    for transposed in (False, True):
        pyramid = Pyramid(4, (2,), transposed)
        torch.nn.init.zeros_(pyramid.convs[0].weight)
        cells = [max(round(side / 2), 1) for side in size]
        upright = pyramid(x).unflatten(1, cells[::-1] if transposed else cells)
        turned = pyramid(x.transpose(1, 2)).unflatten(1, cells if transposed else cells[::-1])
        same = torch.allclose(upright.transpose(1, 2), turned, atol=1e-6)
        assert same == (not transposed or size[0] == size[1])


def test_every_pixel_attends_to_the_whole_pyramid():
    """Written out for one query, head by head."""
    torch.manual_seed(0)
    attention, pyramid, x = PyramidAttention(8, 2), Pyramid(8, (2, 4), False), torch.randn(1, 8, 16, 8)
    q = attention.query(x)[0, 5, 9]
    k, v = attention.key_value(attention.norm(pyramid(x)[0])).chunk(2, -1)
    heads = []
    for h in range(2):
        mine = slice(4 * h, 4 * h + 4)
        heads.append((k[:, mine] @ q[mine] / 2).softmax(0) @ v[:, mine])
    torch.testing.assert_close(attention(x, pyramid)[0, 5, 9], attention.proj(torch.cat(heads)))


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_what_does_not_agree_with_the_input_goes_back_in(scale):
    """A correction that passes all three bands on, on features of nothing: what is lost is added again."""
    model, x = tiny("spt", scale=scale), torch.rand(1, 3, 6, 9)
    for parameter in (*model.head.parameters(), *model.correct.parameters()):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.dirac_(model.correct[0].weight)
    torch.nn.init.dirac_(model.correct[1].weight)
    large = (6 * scale, 9 * scale)
    base = F.interpolate(x, large, mode="bilinear")
    # What shrinking a result keeps: the pixels about the middle of each, a mean of two of them each way at
    # even scales, one at x3.
    middle = scale // 2
    rows = base.unflatten(2, (6, scale)).unflatten(4, (9, scale))
    if scale == 3:
        kept = rows[:, :, :, middle, :, middle]
    else:
        kept = rows[:, :, :, middle - 1 : middle + 1, :, middle - 1 : middle + 1].mean((3, 5))
    expected = base + F.interpolate(x - kept, large, mode="bilinear") + model.mean.mean
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


def test_the_contract_follows_the_pools():
    tiling = tiny("spt", pools=(3, 4)).contract.tiling
    assert (tiling.multiple, tiling.reach) == (12, None)
    assert tiny("spt", pools=(3, 4))(torch.rand(1, 3, 5, 13)).shape == (1, 3, 10, 26)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 5}, "heads=5"),
        ({"compress": 97}, "compress=97"),
        ({"fusion_compress": 97}, "fusion_compress=97"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0"),
        ({"pools": (2, 0)}, r"pools=\(2, 0\)"),
        ({"pooling": "mean"}, "pooling='mean'"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model("spt", **options)
