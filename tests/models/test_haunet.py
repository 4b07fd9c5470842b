import torch
import torch.nn.functional as F

from geomoe.models.haunet import SpatialAttention
from tests.models.sizes import tiny


def test_without_its_last_convolution_it_interpolates():
    model, x = tiny("haunet", scale=3), torch.rand(1, 3, 5, 7)
    for parameter in model.last.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(model(x), F.interpolate(x, size=(15, 21), mode="bilinear"))


def test_spatial_attention_weighs_every_pixel_by_its_cosine():
    torch.manual_seed(0)
    attention, x = SpatialAttention(4), torch.randn(1, 4, 3, 5)
    attention.temperature.data.fill_(3.0)
    q, k, v = attention.qkv(x).flatten(2).chunk(3, 1)  # [1, C, N]
    cosines = torch.stack([torch.cosine_similarity(q[..., n : n + 1], k, 1) for n in range(15)], 1)
    expected = attention.proj((v @ (3 * cosines).softmax(-1).transpose(1, 2)).view(x.shape))
    torch.testing.assert_close(attention(x), expected)


def test_only_the_finest_level_attends_among_pixels():
    model = tiny("haunet")
    levels = [*model.encoder, *model.decoder]
    having = [any(isinstance(m, SpatialAttention) for m in level.modules()) for level in levels]
    assert having == [True, False, False, True, False]


def test_a_pixel_far_away_is_seen():
    model, x = tiny("haunet").eval(), torch.rand(1, 3, 4, 64)
    changed = x.clone()
    changed[..., -1] = 1 - changed[..., -1]
    with torch.inference_mode():
        assert not torch.equal(model(x)[..., :4], model(changed)[..., :4])
