"""The filter of spatial frequencies, and what runs on windows."""

import torch

from geomoe.layers.frequency_filter import FrequencyFilter
from geomoe.layers.windows import in_windows


def filtered(side=8, groups=2):
    torch.manual_seed(0)
    return FrequencyFilter(side, groups), torch.randn(3, side, side, 6)


def test_at_first_it_changes_nothing_bit_for_bit():
    layer, x = filtered()
    assert torch.equal(layer(x), x)


def test_factors_of_1_are_the_identity_of_the_transform():
    layer, x = filtered()
    torch.nn.init.constant_(layer.change, -1.0)
    assert layer(x).abs().max() < 1e-6, "all is taken away, to rounding"


def test_the_lowest_frequency_alone_is_the_mean_of_each_channel():
    layer, x = filtered()
    torch.nn.init.constant_(layer.change, -1.0)
    layer.change.data[0, 0] = 0
    torch.testing.assert_close(layer(x), x.mean((1, 2), keepdim=True).expand_as(x), atol=1e-6, rtol=1e-5)


def test_groups_of_channels_have_factors_of_their_own():
    layer, x = filtered()
    layer.change.data[2, 3, 1] = 0.5
    changed = (layer(x) - x).abs().amax((0, 1, 2)) > 1e-6
    assert changed.tolist() == [False] * 3 + [True] * 3


def test_a_wave_is_multiplied_by_the_factor_of_its_frequency():
    layer, _ = filtered(8, 1)
    layer.change.data[0, 2] = 1.5
    wave = torch.cos(2 * torch.pi * 2 * torch.arange(8) / 8).view(1, 1, 8, 1).expand(1, 8, 8, 1)
    torch.testing.assert_close(layer(wave), 2.5 * wave, atol=1e-5, rtol=1e-5)


def test_every_window_is_run_by_itself_and_put_back_where_it_was():
    x = torch.randn(2, 8, 12, 3)
    done = in_windows(lambda cut: cut - cut.mean((1, 2), keepdim=True), x, 4)
    by_hand = x[1, 4:, 8:] - x[1, 4:, 8:].mean((0, 1))
    torch.testing.assert_close(done[1, 4:, 8:], by_hand)
    assert torch.equal(in_windows(lambda cut: cut[:, ::2, ::2], x, 4, 2), x[:, ::2, ::2])


def test_a_window_that_the_image_does_not_fill_is_mirrored_and_cut_off():
    x = torch.randn(1, 5, 7, 3)
    done = in_windows(lambda cut: cut.mean((1, 2), keepdim=True).expand_as(cut), x, 4)
    assert done.shape == x.shape
    mirrored = torch.stack([x[0, 4], x[0, 3], x[0, 2], x[0, 1]])[:, [4, 5, 6, 5]]
    torch.testing.assert_close(done[0, 4, 6], mirrored.mean((0, 1)))
