import pytest
import torch

from geomoe.layers.transposed import ChannelNorm, ConvolutionalProjection, channel_scores, split_heads


def test_scores_are_cosines_written_out():
    q, k = torch.randn(2, 2, 4, 3, 5, dtype=torch.float64).unbind()
    heat = torch.tensor([2.0, 3.0]).double().view(2, 1, 1)
    scores = channel_scores(split_heads(q, 2), split_heads(k, 2), heat)
    assert scores.shape == (2, 2, 2, 2)
    for b in range(2):
        for c in range(4):
            for d in range(2):
                other = k[b, c // 2 * 2 + d]  # of the same head
                alike = torch.cosine_similarity(q[b, c].flatten(), other.flatten(), 0)
                torch.testing.assert_close(scores[b, c // 2, c % 2, d], heat[c // 2, 0, 0] * alike)


def test_the_strength_of_queries_and_keys_does_not_count():
    q, k = torch.randn(2, 1, 2, 4, 36).unbind()
    one = torch.ones(2, 1, 1)
    torch.testing.assert_close(channel_scores(q, k, one), channel_scores(100 * q, 0.01 * k, one))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_in_the_precision_of_what_they_are_of(dtype):
    x = torch.randn(1, 1, 4, 9, dtype=dtype)
    assert channel_scores(x, x, torch.ones(1, 1, 1, dtype=dtype)).dtype == dtype


def test_half_precision_holds_the_length_of_a_channel():
    """64 * 64 pixels of 2,000 have the length 128,000, and float16 ends at 65,504."""
    x = torch.randn(1, 1, 4, 4096) * 2000
    exact = channel_scores(x, x, torch.ones(1, 1, 1))
    torch.testing.assert_close(
        channel_scores(x.half(), x.half(), torch.ones(1, 1, 1)), exact, atol=1e-3, rtol=0
    )


def test_projection_sees_one_pixel_around():
    projection, x = ConvolutionalProjection(2, 6), torch.zeros(1, 2, 7, 7)
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
