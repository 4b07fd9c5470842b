import pytest
import torch
from torch import nn

from geomoe import moe
from geomoe.moe.surgery import (
    Layout,
    MaskedExperts,
    NormScore,
    NormThreshold,
    PosteriorScore,
    PrunedRouter,
    expert_norms,
    neuron_importance,
    norm_loss,
    prune,
    search_layout,
    split_feed_forward,
    upcycle,
    used_experts,
)

C, H, E, N = 6, 12, 3, 50


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def block():
    return nn.Linear(C, H), nn.Linear(H, C)


def dense(up, down, x):
    return down(nn.functional.gelu(up(x)))


@pytest.mark.parametrize("top_k", [1, 2])
def test_upcycled_equals_dense(top_k):
    up, down = block()
    x = torch.randn(N, C)
    choice = moe.TopK(top_k, "normalised" if top_k > 1 else "straight_through")
    layer = moe.MoE(moe.Router(moe.LinearScore(C, E), choice), upcycle(up, down, E))
    torch.testing.assert_close(layer(x), dense(up, down, x))
    apart = upcycle(up, down, E, jitter=0.1)
    assert not torch.equal(apart.up[0], apart.up[1])


def test_a_disjoint_split_sums_to_the_dense_block():
    up, down = block()
    x = torch.randn(N, C)
    dense(up, down, x).square().sum().backward()
    importance = neuron_importance(up, down)
    assert importance.shape == (H,)
    bank = split_feed_forward(up, down, E, importance, top_k=E)
    total = sum(bank.expert(e, x) for e in range(E))
    torch.testing.assert_close(total, dense(up, down, x))
    assert bank.row_flops() == (2 * 2 * C * H // E,) * E


def test_an_expert_that_a_row_is_given_alone_has_the_whole_bias():
    up, down = block()
    bank = split_feed_forward(up, down, E, torch.rand(H), shared=H - E)  # all neurons but a few are in each
    for e in range(E):
        torch.testing.assert_close(bank.down_bias[e], down.bias)
    with torch.no_grad():
        up.weight.zero_(), up.bias.zero_()  # nothing but the bias is left: an expert alone is the block
    alone = split_feed_forward(up, down, E, torch.rand(H))
    x = torch.randn(N, C)
    torch.testing.assert_close(alone.expert(1, x), dense(up, down, x))
    with pytest.raises(ValueError, match="top_k=5: expected 1 to 3"):
        split_feed_forward(up, down, E, torch.rand(H), top_k=5)


def test_a_split_with_shared_neurons_gives_them_to_all():
    up, down = block()
    importance = torch.arange(H).float()
    bank = split_feed_forward(up, down, E, importance, shared=3)
    for e in range(E):
        torch.testing.assert_close(bank.up[e, :, :3].T, up.weight[[11, 10, 9]])
    with pytest.raises(ValueError, match="cannot share equally"):
        split_feed_forward(up, down, 5, importance)
    with pytest.raises(ValueError, match="bias, or neither"):
        split_feed_forward(nn.Linear(C, H, bias=False), down, 3, importance)
    with pytest.raises(ValueError, match="run backward"):
        neuron_importance(*block())


def test_dynamic_k_is_dense_at_zero_and_falls_with_tau():
    up, down = block()
    x = torch.randn(N, C)
    bank = split_feed_forward(up, down, E, torch.rand(H), top_k=E)
    score = NormScore(C, E, 16)
    choice = NormThreshold(0.0)
    layer = moe.MoE(moe.Router(score, choice), bank)
    torch.testing.assert_close(layer(x), dense(up, down, x))
    norms = expert_norms(bank, x)
    optimiser = torch.optim.Adam(score.parameters(), 1e-2)
    first = float(norm_loss(score(x), norms).detach())
    for _ in range(200):
        optimiser.zero_grad()
        norm_loss(score(x), norms).backward()
        optimiser.step()
    assert float(norm_loss(score(x), norms).detach()) < 0.3 * first
    used = []
    for tau in (0.0, 0.5, 0.9, 1.0):
        choice.tau = tau
        used.append(int(layer.router(x).kept.sum()))
    assert used[0] == N * E
    assert used == sorted(used, reverse=True)
    assert used[-1] >= N


def test_masks_all_on_are_dense_and_separate_experts_do_the_same():
    up, down = block()
    x = torch.randn(N, C)
    bank = MaskedExperts(up, down, E).eval()
    torch.testing.assert_close(bank.expert(1, x), dense(up, down, x))
    with torch.no_grad():
        bank.logits.normal_()
        bank.logits[2] = -1.0
    for e, alone in enumerate(bank.separate()):
        torch.testing.assert_close(alone.expert(0, x), bank.expert(e, x))
    assert bank.row_flops()[2] == 0
    bank.train()
    layer = moe.MoE(moe.softmax_router(C, E), bank)
    (layer(x).sum() + bank.size_loss(0.5)).backward()
    assert bank.logits.grad.abs().sum() > 0
    assert up.weight.grad is None


def test_pruned_equals_full_on_kept_routes():
    x = torch.randn(N, C)
    router, bank = moe.switch_router(C, 5).eval(), moe.FeedForwardExperts(C, H, 5)
    plan = router(x)
    keep = used_experts([plan], 3)
    assert list(keep) == sorted(torch.bincount(plan.experts[:, 0], minlength=5).topk(3).indices.tolist())
    full = moe.MoE(router, bank)(x)
    small = prune(moe.MoE(router, bank), keep)
    kept = torch.isin(plan.experts[:, 0], torch.tensor(keep))
    assert 0 < kept.sum() < N
    torch.testing.assert_close(small(x)[kept], full[kept])
    assert not small(x)[~kept].any()
    torch.testing.assert_close(small.router(x).probabilities.sum(1), torch.ones(N))
    for wrong in ((2, 1), (1, 1), (1, 9), ()):
        with pytest.raises(ValueError, match="keep"):
            PrunedRouter(router, wrong)
        with pytest.raises(ValueError, match="keep"):
            prune(moe.MoE(router, bank), wrong)
    with pytest.raises(ValueError, match="keep=9"):
        used_experts([plan], 9)


def test_other_banks_are_pruned_too():
    x = torch.randn(N, C)
    for bank in (
        moe.LowRankExperts(C, C, 2, 5),
        moe.ModuleExperts([nn.Linear(C, C) for _ in range(5)]),
    ):
        if isinstance(bank, moe.LowRankExperts):
            nn.init.normal_(bank.b)
        layer = moe.MoE(moe.switch_router(C, 5).eval(), bank)
        kept = torch.isin(layer.router(x).experts[:, 0], torch.tensor([0, 2, 4]))
        torch.testing.assert_close(prune(layer, (0, 2, 4))(x)[kept], layer(x)[kept])


def test_an_ensembles_gate_is_the_posterior():
    clusters = torch.arange(3).repeat(200)
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]])
    x = centres[clusters] + torch.randn(600, 2) * torch.tensor([1.0, 2.0, 0.5])[clusters, None]
    score = PosteriorScore.of(x, clusters)
    normal = [torch.distributions.Normal(score.centres[c], score.variances[c].sqrt()) for c in range(3)]
    joint = torch.stack([n.log_prob(x).sum(1) for n in normal], 1).exp() / 3
    plan = moe.Router(score, moe.AllExperts())(x)
    torch.testing.assert_close(plan.probabilities, joint / joint.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)
    assert (plan.probabilities.argmax(1) == clusters).float().mean() > 0.85
    assert not list(score.parameters())


def test_a_layout_is_found_within_the_budget():
    def cost(layout):
        return sum(e * h for e, h in zip(layout.experts, layout.hidden, strict=True))

    asked = []

    def quality(layout):
        asked.append(layout)
        return sum(e**0.5 * h for e, h in zip(layout.experts, layout.hidden, strict=True))

    found = search_layout(3, quality, cost, 1000, seed=1)
    assert cost(found) <= 1000
    assert all(cost(layout) <= 1000 for layout in asked)
    assert len(asked) == len(set(asked))
    assert quality(found) > quality(Layout((1, 1, 1), (64, 64, 64)))
    assert found == search_layout(3, quality, cost, 1000, seed=1)
    with pytest.raises(ValueError, match="budget"):
        search_layout(3, quality, cost, 100)
