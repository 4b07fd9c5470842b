import pytest
import torch
import torch.nn.functional as F

import geomoe
from geomoe.models.spt import BackProjection, PyramidAttention, SptConfig
from tests.models.sizes import tiny


def pyramid(**options):
    torch.manual_seed(0)
    return PyramidAttention(SptConfig(**{"embed_dim": 12, "heads": 6, **options}))


def test_each_third_of_the_heads_attends_to_one_scale():
    """Written out for the image of one query, head by head."""
    attention, x = pyramid(), torch.randn(1, 8, 16, 12)
    q = attention.query(x)[0, 5, 9]  # 12 channels: 3 scales of 2 heads of 2
    heads = []
    for i, pool in enumerate((2, 4, 8)):
        cells = x[0].unfold(0, pool, pool).unfold(1, pool, pool).mean((-1, -2)).flatten(0, 1)  # [M, 12]
        k, v = attention.key_value[i](cells).split(4, -1)
        for h in range(2):
            mine = slice(2 * h, 2 * h + 2)
            scores = k[:, mine] @ q[4 * i : 4 * i + 4][mine] / 2**0.5
            heads.append(scores.softmax(0) @ v[:, mine])
    torch.testing.assert_close(attention(x)[0, 5, 9], attention.proj(torch.cat(heads)))


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (32, 16)])
def test_no_image_is_scrambled_whatever_its_sides(size):
    """Attention knows no place, so an image on its side gives the result on its side."""
    attention, x = pyramid(), torch.randn(2, *size, 12)
    torch.testing.assert_close(attention(x.transpose(1, 2)), attention(x).transpose(1, 2))


def one_to_one(projection):
    """Convolutions that pass each channel's middle pixel on."""
    for conv in projection.modules():
        if isinstance(conv, torch.nn.Conv2d):
            torch.nn.init.dirac_(conv.weight)
            torch.nn.init.zeros_(conv.bias)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_what_agrees_with_the_input_is_not_corrected(scale):
    projection, x = BackProjection(4, scale), torch.rand(1, 4, 3, 5)
    one_to_one(projection)
    torch.testing.assert_close(projection(x), F.interpolate(x, scale_factor=scale))


def test_what_is_lost_on_the_way_is_put_back():
    """Where the way up loses half, the other half comes back by the correction."""
    projection, x = BackProjection(4, 2), torch.rand(1, 4, 3, 5)
    one_to_one(projection)
    projection.up[1].weight.data *= 0.5
    torch.testing.assert_close(projection(x), F.interpolate(x, scale_factor=2))


def test_the_contract_follows_the_pools():
    contract = tiny("spt", pools=(3, 4), heads=2).contract
    assert (contract.multiple, contract.reach) == (12, None)
    assert tiny("spt", pools=(3, 4), heads=2)(torch.rand(1, 3, 5, 13)).shape == (1, 3, 10, 26)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 5}, "heads=5"),
        ({"heads": 4}, r"pools=\(2, 4, 8\)"),
        ({"compress": 97}, "compress=97"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0"),
        ({"pools": (2, 0)}, r"pools=\(2, 0\)"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model("spt", **options)
