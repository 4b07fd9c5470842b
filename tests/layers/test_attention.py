import pytest
import torch
import torch.nn.functional as F

from geomoe.layers.attention import CosineWindowAttention, OverlappingCrossAttention, WindowAttention
from geomoe.layers.windows import merge_windows, pad_to_multiple, partition_windows, relative_position_index


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (8, 16), (5, 9)])
def test_padding_keeps_the_image_and_mirrors_beyond_it(size):
    x = torch.arange(size[0] * size[1], dtype=torch.float32).view(1, 1, *size)
    padded = pad_to_multiple(x, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    if 8 > size[1] > 1:
        assert torch.equal(padded[..., size[1]], padded[..., size[1] - 2])


def test_windows_are_inverse_and_in_place():
    x = torch.randn(2, 8, 12, 3)
    windows = partition_windows(x, 4)
    assert windows.shape == (2, 2, 3, 16, 3)
    assert torch.equal(windows[1, 1, 2].view(4, 4, 3), x[1, 4:8, 8:12])
    assert torch.equal(merge_windows(windows, 4), x)


@pytest.mark.parametrize(("query", "key"), [(4, 4), (4, 6)])
def test_relative_positions_depend_on_the_offset_alone(query, key):
    index = relative_position_index(query, key).view(query, query, key, key)
    assert index.min() == 0
    assert index.max() == (query + key - 1) ** 2 - 1
    assert torch.equal(index[1:, 1:, 1:, 1:], index[:-1, :-1, :-1, :-1])
    assert len(index[0, 0].unique()) == key * key


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (12, 20), (4, 4)])
def test_shifted_windows_equal_attention_with_an_explicit_mask(size):
    """A position sees those of its shifted window that lie on the same side of the image's end."""
    torch.manual_seed(0)
    attention, window, shift = WindowAttention(6, 2, 4, 2).eval(), 4, 2
    x = torch.randn(1, *size, 6)
    height, width = size
    place = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).view(
        -1, 2
    )
    moved = place - shift  # window w holds the pixels whose moved coordinate // window == w, ends apart
    key = torch.div(moved, window, rounding_mode="floor")
    same = (key[:, None] == key[None]).all(-1)
    q, k, v = (t.reshape(-1, 2, 3).transpose(0, 1) for t in attention.qkv(x[0]).chunk(3, -1))
    offset = place[None] - place[:, None] + window - 1
    offset = offset.clamp(0, 2 * window - 2)
    bias = attention.bias.table[offset[..., 0] * (2 * window - 1) + offset[..., 1]].permute(2, 0, 1)
    mask = bias.masked_fill(~same, float("-inf"))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(0, 1).reshape(1, *size, 6)
    torch.testing.assert_close(attention(x), attention.proj(expected), atol=1e-5, rtol=1e-5)


def test_overlapping_keys_are_the_surroundings_of_the_window():
    attention = OverlappingCrossAttention(6, 2, 4, 0.5)
    x = torch.randn(1, 8, 12, 6)
    windows = attention._key_windows(x)
    assert windows.shape == (1, 2, 3, 36, 6)
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    assert torch.equal(windows[0, 1, 2].view(6, 6, 6), padded[0, 4:10, 8:14])


def test_overlap_must_be_even():
    with pytest.raises(ValueError, match="overlap"):
        OverlappingCrossAttention(6, 2, 4, 0.25)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "layer",
    [WindowAttention(12, 3, 4, 2), OverlappingCrossAttention(12, 3, 4, 0.5)],
    ids=["shifted", "overlap"],
)
def test_attention_while_training_is_that_of_use(layer, precision):
    x = torch.randn(2, 8, 12, 12)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        trained = layer(x)
        with torch.inference_mode():
            used = layer(x)
    assert trained.requires_grad
    torch.testing.assert_close(
        trained.detach(), used, rtol=0, atol=1e-6 if precision == torch.float32 else 8e-3
    )


def test_cosine_attention_is_the_sum_written_out():
    """Swin V2, equation 2, with a table: scaled cosines plus a bias, and LePE's convolution of values."""
    torch.manual_seed(0)
    attention = CosineWindowAttention(6, 2, window=3, shift=0).eval()
    for bias in (attention.query_bias, attention.value_bias):
        torch.nn.init.normal_(bias)
    x = torch.randn(1, 3, 3, 6)
    with torch.no_grad():
        q, k, v = attention.qkv(x.view(9, 6)).chunk(3, -1)  # keys have no bias
        q, v = q + attention.query_bias, v + attention.value_bias
        local = attention.local(v.T.view(1, 6, 3, 3)).view(6, 9).T
        q, k, v = (t.view(9, 2, 3) for t in (q, k, v))
        cosine = torch.einsum("nhd,mhd->hnm", F.normalize(q, dim=-1), F.normalize(k, dim=-1))
        weights = (10 * cosine + attention.bias()[0]).softmax(-1)
        mixed = torch.einsum("hnm,mhd->nhd", weights, v).reshape(9, 6)
        expected = attention.proj(mixed + local)
        torch.testing.assert_close(attention(x).view(9, 6), expected, atol=1e-5, rtol=1e-5)


def test_the_scale_of_cosines_ends_at_100():
    attention = CosineWindowAttention(6, 2, window=3, shift=0).eval()
    x = torch.randn(1, 3, 3, 6)
    with torch.no_grad():
        attention.log_scale.fill_(5.0)
        first = attention(x)
        attention.log_scale.fill_(9.0)
        assert torch.equal(attention(x), first)


def test_the_local_part_of_cosine_attention_stays_in_its_window():
    torch.manual_seed(0)
    attention = CosineWindowAttention(6, 2, window=4, shift=0).eval()
    x = torch.randn(1, 4, 8, 6)
    y = x.clone()
    y[:, :, 4:] += 1
    with torch.no_grad():
        assert torch.equal(attention(x)[:, :, :4], attention(y)[:, :, :4])
