"""Batches: every row in one place, and padding that costs less than the calls it saves."""

import pytest
import torch

from geomoe.moe.kernels import batches as room
from geomoe.moe.kernels.batches import StackGradient, batches, bias_gradient

COUNTS = {
    "even": (30, 30, 30, 30),
    "uneven": (30, 41, 7, 28, 33),
    "idle": (0, 12, 0, 0, 9, 11, 0),
    "skewed": (5, 4000, 3, 2, 900, 1),
    "one": (17,),
    "none": (0, 0),
}
every_load = pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
every_cost = pytest.mark.parametrize("flops", [100, 200_000, 10_000_000])


@every_load
@every_cost
def test_every_row_has_one_place_and_comes_back(counts, flops):
    total = sum(counts)
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows, back = torch.randn(total, 3), torch.full((total, 3), torch.nan)
    for batch in batches(counts, 64, flops):
        padded = batch.pad(rows)
        assert padded.shape == (*batch.shape, 3)
        batch.unpad(padded, back)
        for run, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
            assert (owners[start : start + length] == batch.first + run).all()
            assert not padded[run, length:].any()
            torch.testing.assert_close(batch.take(rows)[run, :length], rows[start : start + length])
        place = batch.place(back)
        if place is not None:  # nothing is copied: results are written where they belong
            place.copy_(padded)
    torch.testing.assert_close(back, rows, rtol=0, atol=0)


@every_load
def test_dear_rows_are_not_padded(counts):
    assert not any(batch.padded for batch in batches(counts, 64, 10**12))


@every_load
@every_cost
def test_padding_costs_less_than_the_calls_it_saves(counts, flops):
    made = batches(counts, 64, flops)
    places = sum(runs * length for runs, length in (batch.shape for batch in made))
    saved = sum(count > 0 for count in counts) - len({batch.first for batch in made})
    assert (places - sum(counts)) * flops <= saved * torch.get_num_threads() * room._CALL


@pytest.mark.parametrize(
    ("threads", "flops", "runs"), [(1, 100, [5]), (1, 400_000, [2, 3]), (4, 400_000, [5])]
)
def test_cheap_rows_are_padded_and_more_of_them_for_more_cores(threads, flops, runs, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    made = batches((30, 41, 7, 28, 33), 64, flops)
    assert [len(batch.lengths) for batch in made] == runs


def test_nothing_of_an_expert_without_rows_enters_a_product():
    assert [batch.experts for batch in batches((3, 0, 4, 5, 0), 64, 1)] == [slice(0, 1), slice(2, 4)]


@pytest.mark.parametrize("threads", [1, 2, 128])
def test_a_batch_fits_in_the_cache(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(room, "_CACHE", 640)
    monkeypatch.setattr(room, "_CORES", 2)
    made = batches((3, 4, 5, 200, 6), 64, 1)
    assert all(runs * length <= 10 * min(threads, 2) for runs, length in (batch.shape for batch in made))
    assert [batch.begun for batch in made if batch.first == 3].count(False) == 1


@every_load
def test_the_gradient_of_a_stack(counts):
    a, b = torch.randn(sum(counts), 3), torch.randn(sum(counts), 2)
    products, sums = StackGradient(torch.empty(len(counts), 3, 2)), bias_gradient(torch.empty(len(counts), 2))
    for batch in batches(counts, 1 << 17, 1000):
        products.add_product(batch, batch.pad(a).mT, batch.pad(b))
        sums.add_rows(batch, batch.pad(b))
    for e, (mine, yours) in enumerate(zip(a.split(counts), b.split(counts), strict=True)):
        torch.testing.assert_close(products.done()[e], mine.T @ yours, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(sums.done()[e], yours.sum(0), atol=1e-3, rtol=1e-4)
