"""HAUNet: the published function, and what holds whatever its weights."""

import pytest
import torch
import torch.nn.functional as F

import geomoe
from geomoe.models.super_resolution import haunet
from geomoe.models.super_resolution.haunet import attend_channels, attend_pixels
from tests.models.golden import check, golden, image, seen
from tests.models.sizes import tiny


def test_it_is_the_published_one():
    model = golden("haunet", dtype=torch.float64, scale=4)
    found = seen(
        model,
        image(3, 16, 24),
        shallow=model.shallow,
        finest=model.encoder[0][0],
        middle=model.encoder[1][0],
        bottom=model.encoder[2],
        cross=model.interaction,
        up_bottom=model.decoder[2],
        up_middle=model.decoder[1],
        up_finest=model.decoder[0],
    )
    check(found["shallow"], -0.052585, 0.340686, -0.016481, -0.044153, -0.257024)
    check(found["finest"], -0.042999, 0.335338, 0.006705, 0.020491, -0.205747)
    check(found["middle"], 0.046232, 0.211301, 0.059066, -0.165401, -0.141473)
    check(found["bottom"], -0.014892, 0.190373, 0.162602, 0.157241, -0.178746)
    check(found["cross"][2], -0.016908, 0.206195, -0.203300, 0.106616, -0.169654)
    check(found["up_bottom"], 0.011992, 0.239538, -0.196705, 0.130699, 0.009715)
    check(found["up_middle"], 0.024760, 0.284414, -0.011754, -0.007109, -0.194294)
    check(found["up_finest"], -0.051001, 0.437374, -0.359376, 0.327674, -0.287651)
    check(found["image"], 0.518928, 0.324113, -0.086379, 1.131478, 0.137726)


@pytest.mark.parametrize(
    ("name", "scale", "values"),
    [
        ("haunet", 2, (0.543572, 0.281251, -0.086379, 1.416372, 0.401708)),
        ("haunet_s", 4, (0.552203, 0.340599, -0.142723, 0.771565, 0.561742)),
        ("haunet_s", 2, (0.611734, 0.287142, -0.142723, 1.168535, 0.753165)),
    ],
)
def test_other_sizes_are_the_published_ones(name, scale, values):
    check(seen(golden(name, dtype=torch.float64, scale=scale), image(3, 16, 24))["image"], *values)


def test_the_third_matrix_of_the_cim_is_used_where_asked_for():
    """The published network has it and never uses it."""
    x = torch.rand(1, 3, 8, 12)
    changes = {}
    for kind in ("shared", "own"):
        model = tiny("haunet", cross_projection=kind).eval()
        with torch.no_grad():
            before = model(x)
            model.interaction.projections[2].weight.mul_(-1)
            changes[kind] = not torch.equal(model(x), before)
    assert changes == {"shared": False, "own": True}


def test_it_starts_as_convolutions_and_steps_between_levels():
    """Every block is the identity, and so is the cross-scale interaction."""
    model, x = geomoe.create_model("haunet_s", scale=2), torch.randn(1, 64, 8, 8)
    levels = [x, x[..., ::2, ::2], x[..., ::4, ::4]]
    with torch.no_grad():
        assert torch.equal(model.encoder[0](x), x)
        assert all(map(torch.equal, model.interaction(levels), levels))


def test_without_its_last_convolution_it_interpolates():
    model, x = tiny("haunet", scale=3), torch.rand(1, 3, 5, 7)
    for parameter in model.last.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(model(x), F.interpolate(x, size=(15, 21), mode="bilinear"))


def test_attention_among_channels_is_the_sum_written_out():
    q, k, v = torch.randn(3, 1, 4, 3, 5, dtype=torch.float64).unbind()
    heat = torch.tensor([2.0, -3.0]).double().view(2, 1, 1)
    out = attend_channels(q, k, v, heat)
    for c in range(4):
        head = range(2) if c < 2 else range(2, 4)
        alike = [torch.cosine_similarity(q[0, c].flatten(), k[0, d].flatten(), 0) for d in head]
        weights = torch.stack([(heat[c // 2, 0, 0] * a).clamp_min(0) for a in alike]).softmax(0)
        expected = sum(w * v[0, d] for w, d in zip(weights, head, strict=True))
        torch.testing.assert_close(out[0, c], expected)


def test_attention_among_pixels_is_the_sum_written_out():
    q, k, v = torch.randn(3, 1, 4, 3, 5, dtype=torch.float64).unbind()
    out = attend_pixels(q, k, v, torch.full((1, 1, 1), 3.0).double())
    flat_q, flat_k, flat_v = (t.flatten(2) for t in (q, k, v))  # [1, C, N]
    cosines = torch.stack([torch.cosine_similarity(flat_q[..., n : n + 1], flat_k, 1) for n in range(15)], 1)
    weights = (3 * cosines).clamp_min(0).softmax(-1)
    torch.testing.assert_close(out, (flat_v @ weights.transpose(1, 2)).view(v.shape))


def test_attention_among_pixels_in_pieces_is_attention_at_once(monkeypatch):
    parts = [torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    heat = torch.ones(2, 1, 1, dtype=torch.float64, requires_grad=True)
    results = []
    for limit in (2**24, 1000):
        monkeypatch.setattr(haunet, "_SCORES", limit)
        out = attend_pixels(*parts, heat)
        results.append((out, *torch.autograd.grad(out.square().sum(), [*parts, heat])))
    for at_once, in_pieces in zip(*results, strict=True):
        torch.testing.assert_close(in_pieces, at_once)


def test_only_the_finest_level_attends_among_pixels():
    model = tiny("haunet")
    levels = [*model.encoder, *model.decoder]
    assert [level[0].pixels is not None for level in levels] == [True, False, False, True, False, False]


def test_a_pixel_far_away_is_seen():
    model, x = tiny("haunet").eval(), torch.rand(1, 3, 4, 64)
    changed = x.clone()
    changed[..., -1] = 1 - changed[..., -1]
    with torch.inference_mode():
        assert not torch.equal(model(x)[..., :4], model(changed)[..., :4])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder": (5, 5)}, r"encoder=\(5, 5\): expected 3 numbers"),
        ({"heads": (1, 5, 4)}, "heads=5"),
        ({"cross_heads": 7}, "cross_heads=7"),
        ({"cross_projection": "none"}, "cross_projection='none'"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model("haunet", **options)
