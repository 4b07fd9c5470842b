"""Blocks of convolutional networks."""

import pytest
import torch

from geomoe.layers.convolution import BandMean, ChannelGate, PixelShuffleUpsampler, ResidualBlock, scale_steps


@pytest.mark.parametrize(("scale", "steps"), [(2, (2,)), (3, (3,)), (4, (2, 2)), (8, (2, 2, 2))])
def test_steps_of_a_scale(scale, steps):
    assert scale_steps(scale) == steps
    assert PixelShuffleUpsampler(4, scale)(torch.rand(1, 4, 3, 5)).shape == (1, 4, 3 * scale, 5 * scale)


@pytest.mark.parametrize(("bands", "peak"), [(3, 255.0), (1, 1.0), (5, 255.0)])
def test_the_mean_comes_back(bands, peak):
    mean, x = BandMean(bands, peak=peak), torch.rand(2, bands, 4, 4)
    torch.testing.assert_close(mean.add(mean.subtract(x)), x)
    assert mean.subtract(x).abs().max() <= peak
    assert not list(mean.parameters())
    assert not mean.state_dict()


def test_a_residual_is_damped():
    block, x = ResidualBlock(4, 0.1), torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(block(x), x + 0.1 * block.body(x))


def test_a_channel_gate_is_a_share():
    gate = ChannelGate(8, 2)(100 * torch.randn(3, 8))
    assert gate.shape == (3, 8)
    assert (gate >= 0).all()
    assert (gate <= 1).all()
