"""Attention that weighs channels and places, against values by hand."""

import pytest
import torch
from torch import nn

from geomoe.layers.gates import (
    CBAM,
    SCSE,
    ChannelAffinity,
    ChannelAttention,
    CoordinateAttention,
    DualAttention,
    PositionAttention,
    SpatialAttention,
)

ALL = [CBAM(4), SCSE(4), CoordinateAttention(4), DualAttention(4)]


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def zeroed(module):
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def bright_row():
    """Bands alike, one row of them bright."""
    x = torch.zeros(1, 2, 6, 5)
    x[:, :, 2] = 1
    return x


@pytest.mark.parametrize("layer", ALL, ids=lambda layer: type(layer).__name__)
def test_the_shape_stays_and_an_image_does_not_depend_on_its_batch(layer):
    x = image(3, 4, 9, 6)
    y = layer(x)
    assert y.shape == x.shape
    torch.testing.assert_close(layer(x[1:2]), y[1:2])


@pytest.mark.parametrize("layer", ALL, ids=lambda layer: type(layer).__name__)
def test_every_parameter_learns(layer):
    layer.zero_grad()
    for name, parameter in layer.named_parameters():
        if name.endswith(("scale", "down.bias", "mlp.0.bias")):  # no hidden unit rests at 0
            nn.init.ones_(parameter)
    layer(image(2, 4, 9, 6)).square().sum().backward()
    # A key's bias is the same for all places, which the softmax does not see.
    still = [n for n, p in layer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-6]
    assert still in ([], ["position.key.bias"])


@pytest.mark.parametrize(
    ("layer", "factor"), [(CBAM(4), 0.25), (CoordinateAttention(4), 0.25), (SCSE(4), 1.0)]
)
def test_gains_that_know_nothing_are_a_half(layer, factor):
    x = image(2, 4, 5, 5)
    torch.testing.assert_close(zeroed(layer)(x), factor * x)


def test_channel_attention_adds_what_it_says_of_means_and_of_maxima():
    layer = zeroed(ChannelAttention(2, reduction=1))
    with torch.no_grad():
        layer.mlp[0].weight.copy_(torch.eye(2))
        layer.mlp[2].weight.copy_(torch.eye(2))
    x = torch.tensor([[[[1.0, 3.0]], [[-4.0, 2.0]]]])  # means 2 and -1, maxima 3 and 2
    torch.testing.assert_close(layer(x).flatten(), torch.tensor([5.0, 2.0]).sigmoid())


def test_spatial_attention_sees_seven_by_seven():
    layer = SpatialAttention()
    x = image(1, 3, 15, 15).requires_grad_()
    layer(x)[0, 0, 7, 7].backward()
    seen = x.grad.abs().sum((0, 1)) > 0
    assert seen[4:11, 4:11].all()
    assert seen.sum() == 49


def test_of_cbam_places_are_weighed_after_channels():
    layer = zeroed(CBAM(2, reduction=1))
    with torch.no_grad():
        layer.channel.mlp[2].bias.copy_(torch.tensor([40.0, -40.0]))  # of the second channel nothing is left
        layer.spatial.conv.weight[0, 1, 3, 3] = 1.0  # the maximum over channels
    x = torch.tensor([1.0, 9.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    torch.testing.assert_close(layer(x)[0, 0], torch.full((3, 3), torch.tensor(1.0).sigmoid().item()))


def test_coordinate_attention_tells_rows_apart_and_channel_attention_does_not():
    torch.manual_seed(0)
    rows, columns = CoordinateAttention(2).gains(bright_row())
    assert (rows[..., 2, :] - rows[..., 0, :]).abs().min() > 1e-4
    torch.testing.assert_close(columns, columns[..., :1].expand_as(columns))
    assert ChannelAttention(2)(bright_row()).shape == (1, 2, 1, 1)  # one gain for all rows


def test_coordinate_attention_turned_is_that_of_the_image_turned():
    layer = CoordinateAttention(3)
    layer.columns.load_state_dict(layer.rows.state_dict())
    x = image(1, 3, 5, 8)
    torch.testing.assert_close(layer(x.mT), layer(x).mT)


def test_scse_is_the_sum_of_both():
    layer = zeroed(SCSE(2))
    with torch.no_grad():
        layer.channel.up.bias.copy_(torch.tensor([40.0, -40.0]))
        layer.spatial.weight[0, 0] = 1.0
    x = image(1, 2, 4, 4)
    places = x[:, :1].sigmoid()
    torch.testing.assert_close(layer(x), x * torch.tensor([1.0, 0]).view(2, 1, 1) + x * places)


@pytest.mark.parametrize("layer", [PositionAttention(4), ChannelAffinity()])
def test_rows_of_affinities_add_up_to_one(layer):
    rows = layer.affinities(image(2, 4, 5, 3)).sum(2)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_dual_attention_starts_as_the_identity():
    x = image(2, 4, 5, 3)
    assert torch.equal(DualAttention(4)(x), x)


def test_position_attention_that_finds_all_places_alike_adds_their_mean():
    layer = zeroed(PositionAttention(2))
    with torch.no_grad():
        layer.value.weight.copy_(torch.eye(2)[..., None, None])
        layer.scale.fill_(0.5)
    x = image(1, 2, 4, 3)
    torch.testing.assert_close(layer(x), 0.5 * x.mean((2, 3), keepdim=True).expand_as(x))


def test_position_attention_does_not_know_where_places_are():
    layer = PositionAttention(4)
    nn.init.ones_(layer.scale)
    x, order = image(1, 4, 4, 3), torch.randperm(12, generator=torch.Generator().manual_seed(1))

    def moved(y):
        return y.flatten(2)[..., order].view(y.shape)

    torch.testing.assert_close(layer(moved(x)), moved(layer(x)))


def test_averages_of_dual_attention_are_those_of_its_result():
    layer, x, of = (
        DualAttention(8),
        image(2, 8, 4, 3),
        torch.rand(3, 12, generator=torch.Generator().manual_seed(1)),
    )
    for part in (layer.position, layer.channel):
        nn.init.constant_(part.scale, 0.7)
    of = of / of.sum(1, keepdim=True)
    torch.testing.assert_close(layer.averages(x, of), layer(x).flatten(2) @ of.T)


def test_channel_affinities_by_hand():
    # The means of products are 1, 0 and 4: rows are the softmax of (1, 0) and of (0, 4).
    x = torch.tensor([[1.0, 1, -1, -1], [2, -2, 2, -2]]).view(1, 2, 2, 2)
    expected = torch.tensor([[1.0, 0], [0, 4]]).softmax(1)
    torch.testing.assert_close(ChannelAffinity().affinities(x)[0], expected)


@pytest.mark.parametrize("layer", ALL, ids=lambda layer: type(layer).__name__)
def test_half_precision_stays_half(layer):
    half = layer.bfloat16()
    assert half(image(1, 4, 6, 6).bfloat16()).dtype == torch.bfloat16
    if hasattr(half, "averages"):
        of = torch.full((2, 36), 1 / 36).bfloat16()
        assert half.averages(image(1, 4, 6, 6).bfloat16(), of).dtype == torch.bfloat16
    layer.float()
