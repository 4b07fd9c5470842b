import pytest
import torch

from geomoe.layers.transposed import (
    ChannelNorm,
    ConvolutionalProjection,
    TransposedAttention,
    transposed_attention,
)


def test_equals_a_sum_over_channels_written_out():
    q, k, v = torch.randn(3, 2, 4, 3, 5, dtype=torch.float64).unbind()
    out = transposed_attention(q, k, v, torch.tensor(2.0))
    for b in range(2):
        for c in range(4):
            alike = [torch.cosine_similarity(q[b, c].flatten(), k[b, d].flatten(), 0) for d in range(4)]
            weights = [torch.exp(2 * a) for a in alike]
            expected = sum(w * v[b, d] for d, w in enumerate(weights)) / sum(weights)
            torch.testing.assert_close(out[b, c], expected, rtol=1e-5, atol=1e-6)


def test_a_cold_attention_copies_the_channel_that_is_alike():
    v = torch.randn(1, 6, 8, 8)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    out = transposed_attention(v[:, order], v, v, torch.tensor(1e3))
    torch.testing.assert_close(out, v[:, order])


def test_the_strength_of_queries_and_keys_does_not_count():
    q, k, v = torch.randn(3, 1, 4, 6, 6).unbind()
    one = torch.ones(())
    torch.testing.assert_close(
        transposed_attention(q, k, v, one), transposed_attention(100 * q, 0.01 * k, v, one)
    )


def test_pixels_have_no_place_but_by_their_neighbours():
    """Without the 3x3 convolutions, moving pixels moves the result."""
    attention, x = TransposedAttention(4), torch.randn(1, 4, 5, 7)
    attention.qkv = torch.nn.Conv2d(4, 12, 1)
    order = torch.randperm(35)
    moved = x.flatten(2)[..., order].view(x.shape)
    expected = attention(x).flatten(2)[..., order].view(x.shape)
    torch.testing.assert_close(attention(moved), expected)


def test_half_precision_holds_the_length_of_a_channel():
    """64 * 64 pixels of 2,000 have the length 128,000, and float16 ends at 65,504."""
    x = torch.randn(1, 4, 64, 64) * 2000
    cold = torch.tensor(100.0)
    out = transposed_attention(*(x.half(),) * 3, cold)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), x, rtol=1e-3, atol=1)


def test_projection_sees_one_pixel_around():
    projection, x = ConvolutionalProjection(2), torch.zeros(1, 2, 7, 7)
    changed = x.clone()
    changed[0, :, 3, 3] = 1
    differs = (projection(x) != projection(changed)).any(1)[0]
    assert differs.nonzero().amin() == 2
    assert differs.nonzero().amax() == 4
    assert differs[2:5, 2:5].all()


@pytest.mark.parametrize("channels", [3, 8])
def test_norm_is_of_the_channels_of_one_pixel(channels):
    y = ChannelNorm(channels)(torch.randn(2, channels, 3, 4) * 7 + 5)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(2, 3, 4), atol=1e-3, rtol=0)
