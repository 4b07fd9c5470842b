"""Means that are kept: exactly, smoothly, within bounds, and with gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import geomoe
from geomoe.layers.super_resolution.conserve import CONSERVE_REACH, conserve
from geomoe.models.contract import Tiling
from tests.models.sizes import tiny

SCALES = (2, 3, 4, 8)


def pair(scale: int, height: int = 7, width: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """An input, and a result a quarter of which is beyond 0 and 1."""
    torch.manual_seed(scale)
    low = torch.rand(2, 3, height, width, dtype=torch.float64)
    high = torch.randn(2, 3, height * scale, width * scale, dtype=torch.float64) * 0.5 + 0.5
    return low, high


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_means_are_the_input(scale: int, bounds: tuple[float, float] | None) -> None:
    for size in ((7, 9), (1, 1), (2, 1)):
        low, high = pair(scale, *size)
        low[0, 0, 0, 0], low[-1, -1, -1, -1] = 0, 1  # at the bounds all of a square must be
        kept = conserve(low, high, scale, bounds)
        torch.testing.assert_close(F.avg_pool2d(kept, scale), low, atol=1e-14, rtol=0)
        if bounds:
            assert kept.min() >= 0
            assert kept.max() <= 1
            assert kept[0, 0, :scale, :scale].max() < 1e-14
        else:
            assert kept.min() < 0


@pytest.mark.parametrize("scale", SCALES)
def test_what_has_the_means_is_left_alone(scale: int) -> None:
    _, high = pair(scale)
    high = high.clamp(0, 1)
    kept = conserve(F.avg_pool2d(high, scale), high, scale, (0.0, 1.0))
    torch.testing.assert_close(kept, high, atol=1e-14, rtol=0)


def test_pixels_that_have_no_room_stay_and_the_others_share() -> None:
    low = torch.tensor([[[[0.5]]]])
    high = torch.tensor([[[[1.6, 0.2], [0.0, 0.2]]]])  # mean 0.5, of which 0.15 is beyond 1
    kept = conserve(low, high, 2, (0.0, 1.0))
    torch.testing.assert_close(kept, torch.tensor([[[[1.0, 0.4], [0.2, 0.4]]]]))


def test_an_input_beyond_the_bounds_is_brought_to_them() -> None:
    kept = conserve(torch.tensor([[[[1.25, -0.5]]]]), torch.rand(1, 1, 2, 4), 2, (0.0, 1.0))
    assert kept[0, 0, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_missing_is_spread_without_squares(scale: int) -> None:
    """A step between two pixels of a slope is no larger at the line of a square than inside."""
    x = torch.arange(12, dtype=torch.float64)
    slope = (x[:, None] + 2 * x[None])[None, None]
    kept = conserve(slope, torch.zeros(1, 1, 12 * scale, 12 * scale, dtype=torch.float64), scale)
    inner = kept[0, 0, 3 * scale : -3 * scale, 3 * scale : -3 * scale]
    for dim, step in ((0, 1), (1, 2)):
        wanted = torch.full_like(inner.diff(dim=dim), step / scale)
        torch.testing.assert_close(inner.diff(dim=dim), wanted, atol=1e-12, rtol=0)


def test_nothing_farther_than_its_reach_is_seen() -> None:
    low, high = pair(4)
    other = low.clone()
    other[..., 3, 4] += 1
    changed = (conserve(other, high, 4) != conserve(low, high, 4)).any(1).any(0)  # [H * 4, W * 4]
    rows, columns = (places // 4 for places in changed.nonzero(as_tuple=True))
    assert (int(rows.min()), int(rows.max())) == (3 - CONSERVE_REACH, 3 + CONSERVE_REACH)
    assert (int(columns.min()), int(columns.max())) == (4 - CONSERVE_REACH, 4 + CONSERVE_REACH)


def test_a_part_of_an_image_has_the_same_bits() -> None:
    low, high = pair(3, 20, 23)
    for bounds in (None, (0.0, 1.0)):
        whole = conserve(low, high, 3, bounds)[..., 4 * 3 : 10 * 3, 5 * 3 : 16 * 3]
        part = conserve(low[..., 2:12, 3:18], high[..., 2 * 3 : 12 * 3, 3 * 3 : 18 * 3], 3, bounds)
        assert torch.equal(part[..., 2 * 3 : 8 * 3, 2 * 3 : 13 * 3], whole)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_gradients_are_right(bounds: tuple[float, float] | None) -> None:
    low, high = (x[:1, :1].requires_grad_() for x in pair(2, 3, 3))
    assert torch.autograd.gradcheck(lambda a, b: conserve(a, b, 2, bounds), (low, high))


def test_half_precision_comes_back_in_single() -> None:
    low, high = (x.bfloat16() for x in pair(4))
    kept = conserve(low, high, 4)
    assert kept.dtype == torch.float32
    torch.testing.assert_close(F.avg_pool2d(kept, 4), low.float(), atol=1e-6, rtol=0)


def test_sizes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="not 2 times"):
        conserve(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 9), 2)


@pytest.mark.parametrize("name", geomoe.list_models("image"))
def test_every_model_can_be_trained_through_it(name: str) -> None:
    model = tiny(name, scale=2)
    x = torch.rand(1, 3, 9, 8)
    out = conserve(x, model(x), model.contract.scale)
    torch.testing.assert_close(F.avg_pool2d(out, 2), x, atol=1e-5, rtol=0)
    (out - torch.rand_like(out)).square().mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("margin", "reach", "wanted"),
    [(8, 5, (8, 7)), (8, 7, (12, 9)), (8, 20, (8, 22)), (8, None, (8, None)), (0, None, (4, None))],
)
def test_margins_grow_where_tiles_would_no_longer_be_the_whole(
    margin: int, reach: int | None, wanted: tuple[int, int | None]
) -> None:
    tiling = Tiling(4, 16, margin, reach).conserving()
    assert (tiling.margin, tiling.reach) == wanted
