import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from geomoe import moe


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (3, 2, 8, 8), (0, 3, 4, 4)])
def test_pixels_samples_tokens_and_series_are_invertible(shape):
    x = torch.randn(shape)
    for kind in (moe.Pixels, moe.Tokens, moe.Samples, moe.TimeSteps, moe.Modalities):
        unit = kind.of(x)
        rows = unit.to_rows(x)
        assert len(rows) == torch.tensor(unit.grid).prod()
        assert torch.equal(unit.from_rows(rows), x)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (8, 4), (9, 2)])
@pytest.mark.parametrize(("size", "halo"), [(4, 0), (4, 1), (3, 2), (1, 0)])
def test_windows_are_invertible_and_hold_true_neighbours(shape, size, halo):
    x = torch.randn(2, 3, *shape)
    unit = moe.Windows.of(x, size, halo)
    rows = unit.to_rows(x)
    assert rows.shape == (len(rows), 3, size + 2 * halo, size + 2 * halo)
    assert torch.equal(unit.from_rows(unit.core(rows)), x)
    if min(shape) > size and halo == 1:
        second = rows.view(*unit.grid, *rows.shape[1:])[0, 0, 1]
        assert torch.equal(second[:, 1:, 0], x[0, :, : size + 1, size - 1])  # its neighbour's last column


def test_time_steps_and_modalities_know_which_a_row_is():
    assert moe.Modalities.of(torch.zeros(2, 3, 4)).ids().tolist() == [0, 1, 2, 0, 1, 2]


def test_regions_pool_and_spread_a_plan():
    labels = torch.tensor([[[7, 7, 2], [2, 2, -1]], [[7, 7, 7], [7, 7, 7]]])
    regions = moe.Regions(labels)
    assert regions.grid == (4,)  # equal labels of two images are two regions
    x = torch.randn(2, 5, 2, 3)
    rows = regions.to_rows(x)
    assert torch.equal(regions.from_rows(rows), x)
    pooled = regions.pool(rows)
    where = list(zip(regions.images.tolist(), regions.labels.tolist(), strict=True))
    seven = where.index((0, 7))
    torch.testing.assert_close(pooled[seven], x[0, :, 0, :2].mean(1))
    plan = moe.switch_router(5, 3)(pooled)
    spread = plan.spread(regions.index, regions.pixels.grid)
    assert spread.grid == (2, 2, 3)
    experts = spread.experts.view(2, 2, 3)
    assert (experts[0, 0, :2] == plan.experts[seven]).all()
    layer = moe.MoE(moe.switch_router(5, 3), moe.FeedForwardExperts(5, 8, 3))
    assert layer.carry_out(rows, spread).shape == rows.shape
    with pytest.raises(ValueError, match="whole numbers"):
        moe.Regions(torch.zeros(1, 2, 2))


def test_neighbourhoods_of_all_pixels_are_an_unfold():
    x = torch.randn(2, 3, 5, 7)
    rows = moe.Neighbourhoods(x, 2).gather(torch.arange(70), 3)
    unfolded = F.unfold(x, 3, padding=1).view(2, 3, 9, 35).permute(0, 3, 2, 1).reshape(70, 27)
    torch.testing.assert_close(rows, unfolded)


@pytest.mark.parametrize("room", ["geomoe.moe", "geomoe.moe.surgery", "geomoe.models"])
def test_importing_a_low_room_brings_in_no_heavy_neighbour(room):
    code = (
        f"import sys, {room}; "
        "print([m for m in ('rasterio', 'lightning', 'scipy', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
