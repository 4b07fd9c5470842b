"""What a toy of MobileViTv2 with experts would not do."""

import pytest
import torch
from torch import Tensor

from geomoe.models.mobile_moe import SeparableAttention, fold, unfold
from geomoe.models.registry import build
from geomoe.models.sparse_ffn import DenseFFN, SparseConfig, SparseFFN, feed_forward
from geomoe.moe import RoutingTrace, count_flops


def mobile(name: str = "mobile_moe", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    small = {"classes": ("a", "b", "c"), "multiplier": 0.125, "layers": (1, 1, 1)}
    return build(name, {**small, **options}).eval()


def test_the_dense_network_is_as_large_as_published() -> None:
    with torch.device("meta"):
        model = build("mobile_vit", {"classes": tuple(map(str, range(1000)))})
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 4.9  # the paper, table 3


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1), (2, 3)])
def test_folding_undoes_unfolding_at_any_size(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    assert torch.equal(fold(unfold(x), x), x)


def test_tokens_are_pixels_of_one_place_in_their_squares() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert unfold(x)[0, :, :, 0].tolist() == [[0, 2, 8, 10], [1, 3, 9, 11], [4, 6, 12, 14], [5, 7, 13, 15]]


def test_attention_costs_twice_as_much_for_twice_the_tokens() -> None:
    layer = SeparableAttention(8)
    costs = [count_flops(lambda n=n: layer(torch.rand(1, 4, n, 8))) for n in (16, 32)]  # type: ignore[misc]
    assert costs[1] == 2 * costs[0]


def test_scores_of_attention_sum_to_one_over_tokens() -> None:
    scores = SeparableAttention(8).scores(torch.randn(2, 4, 9, 1))
    torch.testing.assert_close(scores.sum(2), torch.ones(2, 4, 1))


def test_a_factor_on_tokens_leaves_their_plan_as_it_is() -> None:
    torch.manual_seed(0)
    layer = feed_forward(SparseConfig(sparse="all", experts=4, router="cosine"), 8, 0, 1)

    def plan(x: Tensor) -> Tensor:
        trace = RoutingTrace()
        layer(x, trace)
        return trace[0].experts

    x = torch.randn(2, 4, 9, 8)
    assert len(plan(x).unique()) > 1
    assert torch.equal(plan(10 * x), plan(x))


def test_one_expert_is_the_dense_block() -> None:
    sparse, dense = mobile(experts=1), mobile("mobile_vit")
    named = dict(dense.named_parameters())
    for name, module in sparse.named_modules():
        if isinstance(module, SparseFFN):
            first, last = (dense.get_submodule(name).layers[i] for i in (0, 2))  # type: ignore[union-attr, index]
            bank = dict(module.moe.bank.named_parameters())
            assert isinstance(dense.get_submodule(name), DenseFFN)
            pairs = zip(bank.values(), (first.weight.T, first.bias, last.weight.T, last.bias), strict=True)
            for ours, theirs in pairs:
                ours.data.copy_(theirs.reshape(ours.shape) if ours.numel() == theirs.numel() else theirs)
    sparse.load_state_dict(named, strict=False)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(sparse(x), dense(x))
