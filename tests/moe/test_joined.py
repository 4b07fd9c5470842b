import pytest
import torch
from torch import nn

from geomoe import moe
from geomoe.moe.experts.parallel import ParallelExperts
from geomoe.moe.surgery import prune

C, N = 4, 40


def warmed(bank):
    nn.init.normal_(bank.b)
    return bank


def test_adapters_of_unlike_ranks_are_one_bank_and_run_stacked(monkeypatch):
    small, large = warmed(moe.LowRankExperts(C, C, 2, 3)), warmed(moe.LowRankExperts(C, C, 8, 2))
    bank = moe.JoinedBank([small, large])
    assert bank.row_flops() == (2 * 2 * C * 2,) * 3 + (2 * 2 * C * 8,) * 2
    rows = torch.randn(N, C)
    plan = moe.Router(moe.LinearScore(C, 5), moe.TopK(2))(rows)
    reference = moe.dispatch(bank, rows, plan, "dense")
    monkeypatch.setattr(moe.LowRankExperts, "expert", None)  # the slow path, one expert after the other
    torch.testing.assert_close(moe.dispatch(bank, rows, plan), reference)


def test_a_bank_without_rows_is_called_too():
    """Experts that are spread over processes wait for each other, whoever has rows."""
    called = []

    class Told(moe.CopyExperts):
        def run(self, rows, index, counts):
            called.append(counts)
            return super().run(rows, index, counts)

    bank, rows = moe.JoinedBank([Told(2), Told(1)]), torch.randn(N, C)
    assert torch.equal(bank.run(rows, torch.arange(N), (N, 0, 0)), rows)
    assert bank.run(rows, torch.arange(0), (0, 0, 0)).shape == (0, C)
    assert called == [(N, 0), (0,), (0, 0), (0,)]


def test_nothing_and_a_copy_cost_nothing_and_give_what_they_say():
    network = moe.FeedForwardExperts(C, 8, 2)
    bank = moe.JoinedBank([network, moe.ZeroExperts(), moe.CopyExperts(2)])
    assert bank.num_experts == 5
    assert bank.row_flops()[2:] == (0, 0, 0)
    rows = torch.randn(N, C)
    experts = torch.randint(5, (N, 1))
    p = torch.full((N, 5), 0.2)
    plan = moe.RoutingPlan(experts, torch.full((N, 1), 0.5), p, p.log(), (5,), (N,))
    out = moe.dispatch(bank, rows, plan)
    for e, expected in ((2, 0 * rows), (3, rows / 2), (4, rows / 2), (0, network.expert(0, rows) / 2)):
        mine = experts[:, 0] == e
        assert mine.any()
        torch.testing.assert_close(out[mine], expected[mine])
    assert moe.count_flops(lambda: moe.dispatch(bank, rows, plan, "loop")) == moe.active_flops(bank, plan)


def test_experts_that_share_their_matrices_have_one_of_each():
    bank = moe.SharedValueExperts(C, 6, 3)
    assert bank.num_parameters == 3 * C * 6 + C * 6 + 6 * C
    rows = torch.randn(N, C)
    expected = bank.down(nn.functional.silu(rows @ bank.gate[1]) * bank.value(rows))
    torch.testing.assert_close(bank.expert(1, rows), expected)
    with pytest.raises(ValueError, match="activation='tanh'"):
        moe.SharedValueExperts(C, 6, 3, "tanh")


class Running(nn.Module):
    """A scan that remembers: the sum of all steps so far."""

    def forward(self, x):
        return x.cumsum(1)


def test_a_scan_in_each_direction_is_put_back_in_its_place():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    known = {
        "rows": [[0, 1, 3], [6, 10, 15]],
        "rows_reversed": [[15, 15, 14], [12, 9, 5]],
        "columns": [[0, 4, 10], [3, 8, 15]],
        "columns_reversed": [[15, 12, 7], [15, 11, 5]],
    }
    for direction, values in known.items():
        assert moe.InDirection(Running(), direction)(x)[0, 0].tolist() == values
        identity = moe.InDirection(nn.Identity(), direction)
        image = torch.randn(2, 3, 4, 5)
        assert torch.equal(identity(image), image)
    with pytest.raises(ValueError, match="direction='diagonal'"):
        moe.InDirection(Running(), "diagonal")


def test_directions_are_experts_of_a_bank_and_turning_the_image_turns_the_choice():
    torch.manual_seed(0)
    experts = moe.ModuleExperts([moe.InDirection(Running(), d) for d in ("rows", "rows_reversed")])
    images = torch.randn(3, 2, 4, 5)
    p = torch.full((3, 2), 0.5)
    forward = moe.RoutingPlan(torch.zeros(3, 1).long(), torch.ones(3, 1), p, p.log(), (2,), (3,))
    backward = moe.RoutingPlan(torch.ones(3, 1).long(), torch.ones(3, 1), p, p.log(), (2,), (3,))
    turned = moe.dispatch(experts, images.flip(2, 3), backward)
    torch.testing.assert_close(turned.flip(2, 3), moe.dispatch(experts, images, forward))


def test_experts_that_share_matrices_are_not_spread_over_processes():
    shared = moe.SharedValueExperts(C, 6, 3)
    for bank in (shared, moe.JoinedBank([moe.FeedForwardExperts(C, 6, 2), shared])):
        with pytest.raises(ValueError, match="have parameters in common"):
            ParallelExperts(bank, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: moe.JoinedBank(
            [warmed(moe.LowRankExperts(C, C, 2, 2)), moe.ZeroExperts(), moe.CopyExperts()]
        ),
        lambda: moe.SharedValueExperts(C, 6, 4),
    ],
)
def test_joined_and_sharing_experts_are_pruned(make):
    layer, rows = moe.MoE(moe.Router(moe.LinearScore(C, 4)), make()), torch.randn(N, C)
    keep = (0, 3)
    small = prune(layer, keep)
    assert small.bank.num_experts == 2
    kept = torch.isin(layer.router(rows).experts[:, 0], torch.tensor(keep))
    assert 0 < kept.sum() < N
    torch.testing.assert_close(small(rows)[kept], layer(rows)[kept])
    assert (small(rows)[~kept] == 0).all()


def test_convolutions_of_unlike_kernels_are_pruned():
    image = torch.randn(1, C, 6, 7)
    pixels = moe.Pixels.of(image)
    bank = moe.HeterogeneousBank([moe.ConvExperts(C, 5, k, 2) for k in (1, 3)])
    layer = moe.MoE(moe.Router(moe.LinearScore(C, 4)), bank)
    small = prune(layer, (2, 3))  # the kernels of 1 are gone, and their group
    assert small.bank.group_sizes == (2,)
    signals, around = pixels.to_rows(image), moe.Neighbourhoods.of(image, 1)
    kept = layer.router(signals).experts[:, 0] >= 2
    torch.testing.assert_close(small(around, signals)[kept], layer(around, signals)[kept])
