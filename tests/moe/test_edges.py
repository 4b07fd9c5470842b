"""Values at the edges: many experts, no rows in a cluster, weights that underflow, second derivatives."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from geomoe import moe
from geomoe.moe.surgery import PosteriorScore, prune

C, E, N = 8, 4, 60


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Sorting


@pytest.mark.parametrize("experts", [32_766, 32_767, 32_768, 70_000])
def test_as_many_experts_as_one_likes(experts):
    """Adapters of rank 1, expert e adding e to each row: sorted by a narrow integer, numbers would wrap."""
    bank = moe.LowRankExperts(1, 1, 1, experts)
    with torch.no_grad():
        bank.a.fill_(1)
        bank.b.copy_(torch.arange(experts, dtype=torch.float32)[:, None, None])
    chosen = torch.tensor([0, experts - 1, 5, 32_767 % experts, experts // 2, experts - 1])[:, None]
    p = torch.full((6, experts), 1 / experts)
    plan = moe.RoutingPlan(chosen, torch.ones(6, 1), p, p.log(), (experts,), (6,))
    kept = torch.tensor([True, True, True, True, True, False])[:, None]
    for made, mask in ((plan, torch.ones(6, 1)), (replace(plan, kept=kept), kept.float())):
        out = moe.dispatch(bank, torch.ones(6, 1), made, "grouped")
        assert torch.equal(out, chosen * mask)


# Names


def test_an_expert_choice_router_is_named_by_the_experts_that_a_row_has():
    for c in (1.0, 2.0, 2.5):
        plan = moe.expert_choice_router(C, E, experts_per_row=c)(torch.randn(N, C))
        assert moe.routing_health(plan).experts_per_row == pytest.approx(c, abs=0.1)


# Replay


def test_a_replay_with_new_weights_keeps_what_was_kept_and_drops_what_was_dropped():
    layer = moe.MoE(moe.switch_router(C, E, capacity_factor=0.5), moe.FeedForwardExperts(C, 16, E))
    x, first = torch.randn(N, C) + 2, moe.RoutingTrace()
    layer(x, trace=first)
    assert first[0].dropped.any()
    with torch.no_grad():
        layer.router.score.gate.weight.normal_()
    again = moe.Replay(first, mode="soft")
    layer(x, trace=again)
    assert torch.equal(again[0].kept, first[0].kept)
    assert torch.equal(again[0].dropped, first[0].dropped)
    assert not (again[0].kept & again[0].dropped).any()
    asked = moe.load(first[0], asked=True)
    torch.testing.assert_close(moe.load(again[0], asked=True), asked)


# Clusters


def test_a_cluster_without_rows_is_never_the_answer():
    rows = torch.cat([torch.randn(30, 2), torch.randn(30, 2) + 6])
    clusters = torch.tensor([0] * 30 + [2] * 30)
    score = PosteriorScore.of(rows, clusters, num_clusters=4)
    plan = moe.Router(score, moe.AllExperts())(rows)
    torch.testing.assert_close(plan.probabilities.sum(1), torch.ones(60))
    assert not plan.probabilities[:, [1, 3]].any()
    assert not plan.gates[:, [1, 3]].any()
    assert (plan.probabilities.argmax(1) == clusters).float().mean() > 0.95
    # the others are as if the empty ones were not there
    alone = PosteriorScore.of(rows, clusters // 2)
    torch.testing.assert_close(score(rows)[:, [0, 2]], alone(rows))
    torch.testing.assert_close(score.centres[0], rows[:30].mean(0))
    torch.testing.assert_close(score.variances[2], rows[30:].var(0, correction=0).mean())
    with pytest.raises(ValueError, match="no rows"):
        PosteriorScore.of(rows[:0], clusters[:0])


# Merging


def mixed_results(bank, x, gates):
    every = torch.stack([bank.expert(e, x) for e in range(E)], 1)
    return (every * gates.view(*gates.shape, *(1,) * (x.dim() - 1))).sum(1)


def test_merged_adapters_are_the_sum_of_what_they_say():
    bank, x = moe.LowRankExperts(C, 5, 3, E, alpha=6), torch.randn(3, 7, C)
    nn.init.normal_(bank.b)
    gates = torch.randn(3, E).softmax(1)
    torch.testing.assert_close(moe.merge(bank, x, gates), mixed_results(bank, x, gates), atol=1e-5, rtol=1e-5)
    ranks = moe.JoinedBank([moe.LowRankExperts(C, 5, r, 2) for r in (2, 4)])
    for adapters in ranks:
        nn.init.normal_(adapters.b)
    torch.testing.assert_close(
        moe.merge(ranks, x, gates), mixed_results(ranks, x, gates), atol=1e-5, rtol=1e-5
    )
    layer = moe.MergedMoE(moe.softmax_router(C, E), bank)
    layer(x, x.mean(1)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda: moe.DepthwiseExperts(3, 5, E),
        lambda: moe.HeterogeneousBank([moe.ConvExperts(3, 3, 3, 2), moe.DepthwiseExperts(3, 5, 2)]),
        lambda: moe.HeterogeneousBank([moe.ConvExperts(3, 6, k, 2) for k in (1, 3)]),
    ],
)
def test_merged_kernels_of_any_kind_are_the_sum_of_what_they_say(make):
    bank, x = make(), torch.randn(2, 3, 6, 7)
    gates = torch.randn(2, E).softmax(1)
    done = moe.merge(bank, x, gates)
    around, pixels = moe.Neighbourhoods.of(x, bank.reach), moe.Pixels.of(x)
    every = torch.stack([pixels.from_rows(bank.everywhere(e, around)) for e in range(E)], 1)
    torch.testing.assert_close(done, (every * gates[:, :, None, None, None]).sum(1), atol=1e-5, rtol=1e-5)


def test_what_has_no_mean_is_not_merged():
    modules = moe.ModuleExperts([nn.Linear(C, C) for _ in range(E)])
    with pytest.raises(ValueError, match="parameters of ModuleExperts have no mean"):
        moe.merge(modules, torch.randn(2, 3, C), torch.ones(2, E) / E)
    widths = moe.JoinedBank([moe.FeedForwardExperts(C, h, 2) for h in (4, 8)])
    with pytest.raises(ValueError, match="FeedForwardExperts have no mean"):
        moe.MergedMoE(moe.softmax_router(C, E), widths)


# Weights


@pytest.mark.parametrize("mode", ["normalised", "straight_through", "hard"])
@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_chosen_experts_whose_probabilities_underflow_still_share_a_row(mode, gate):
    """A bias chooses the two of which the router thinks least."""
    logits = torch.tensor([[300.0, 300.0, 2.0, 0.0]] if gate == "softmax" else [[5.0, 5.0, -200.0, -202.0]])
    logits.requires_grad_()
    preference = logits.detach() + torch.tensor([0.0, 0.0, 1000.0, 1000.0])
    choice = moe.TopK(2, mode, gate=gate)
    selection = choice(logits, preference)
    assert selection.experts.tolist() == [[2, 3]]
    p = selection.probabilities
    assert not p[0, 2:].detach().any()
    expected = torch.tensor([[2.0, 0.0]]).softmax(1)
    torch.testing.assert_close(selection.weights.detach(), expected, atol=1e-4, rtol=1e-4)
    if mode == "normalised":
        selection.weights[0, 0].backward()
        assert logits.grad.isfinite().all()
        assert logits.grad[0, 2] > 0.05


def test_a_single_expert_counts_whatever_its_probability():
    logits = torch.tensor([[300.0, 0.0]])
    selection = moe.TopK(1, "straight_through")(logits, logits + torch.tensor([0.0, 1000.0]))
    assert selection.weights.tolist() == [[1.0]]


def test_a_replayed_choice_that_is_no_longer_believed_in_has_weights_that_sum_to_one():
    p = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    old = moe.RoutingPlan(torch.tensor([[0, 1]]), torch.tensor([[0.7, 0.3]]), p, p.log(), (4,), (1,))
    again = moe.Replay([old], mode="normalised").record(old)
    assert again.weights.tolist() == [[0.5, 0.5]]


def test_normalised_weights_are_the_softmax_over_the_chosen():
    logits = torch.randn(N, E, dtype=torch.float64)
    selection = moe.TopK(2, "normalised")(logits, logits)
    torch.testing.assert_close(selection.weights, logits.topk(2).values.softmax(1))


# What is said of wrong arguments


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: moe.Score(8), r"group_sizes=8: expected a tuple, \(8,\) without groups"),
        (lambda: moe.HierarchicalScore(C, 8), r"group_sizes=8: expected a tuple"),
        (lambda: moe.LossFreeBias(8), r"\(8,\) without groups"),
        (lambda: moe.DualAscent(8), r"\(8,\) without groups"),
        (lambda: moe.BestGroup(8), r"\(8,\) without groups"),
        (lambda: moe.GroupLimit(8, 1), r"\(8,\) without groups"),
        (lambda: moe.dual_router(C, 8), r"\(8,\) without groups"),
        (lambda: moe.single_router(C, 8), r"\(8,\) without groups"),
        (lambda: moe.BestGroup((2, 0)), "at least one expert in every group"),
        (
            lambda: moe.ExpertDropout(0.5, 2)(torch.zeros(3, E)),
            "clusters=2: expected the cluster of each of 4",
        ),
        (lambda: moe.ExpertDropout(0.5, (0, 1))(torch.zeros(3, E)), "each of 4 experts"),
        (
            lambda: moe.cluster_variance_loss(moe.switch_router(C, E)(torch.randn(5, C)), 2),
            "each of 4 experts",
        ),
        (lambda: moe.ElasticTopK(1, 2), "ks=2: expected a sequence"),
        (
            lambda: moe.Router(moe.LinearScore(C, E), adjust=moe.Temperature()),
            r"adjust: expected a list, \[Temp",
        ),
        (
            lambda: moe.Router(moe.LinearScore(C, E), prefer=moe.LossFreeBias((E,))),
            r"prefer: expected a list",
        ),
        (lambda: prune(moe.MoE(moe.switch_router(C, E), moe.FeedForwardExperts(C, 8, E)), 2), "keep=2"),
        (lambda: moe.CosineScore(C, E, temperature=0.0), "temperature=0.0"),
        (lambda: moe.CosineScore(C, E, temperature=0.1, coldest=0.2), "coldest=0.2"),
    ],
)
def test_a_number_where_several_are_expected_is_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_sizes_may_be_a_list():
    assert moe.dual_router(C, [2, 2]).group_sizes == (2, 2)
    assert moe.LossFreeBias([4]).group_sizes == (4,)


# Temperature


def test_a_cosine_router_cannot_grow_colder_than_its_bound():
    router = moe.cosine_router(C, E)
    with torch.no_grad():
        router.score.log_temperature.fill_(-50.0)
    plan = router(torch.randn(N, C))
    assert plan.logits.abs().max() <= 1 / 0.01 + 1e-3
    assert plan.logits.abs().max() > 10
    moe.z_loss(plan).backward()
    assert all(p.grad.isfinite().all() for p in router.parameters())


# Second derivatives


def gradient_penalty(layer, x, ask):
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(ask(layer, x).sum(), x, create_graph=True)
    grad.square().sum().backward()
    return [p.grad for p in layer.parameters()]


def tokens(layer, x):
    return layer(x).square()


def images(layer, x):
    unit = moe.Pixels.of(x)
    return layer(moe.Neighbourhoods.of(x, 1), unit.to_rows(x), grid=unit.grid).square()


CASES = {
    "tokens": (lambda way: moe.FeedForwardExperts(C, 8, E, gated=True), (5, C), tokens),
    "modules": (lambda way: moe.ModuleExperts([nn.Linear(C, C), nn.Linear(C, C)] * 2), (5, C), tokens),
    "images": (lambda way: moe.ConvExperts(C, 6, 3, E), (1, C, 3, 4), images),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_sparse_back_ends_say_that_they_have_no_second_derivative(name, backend):
    make, shape, ask = CASES[name]
    layer = moe.MoE(moe.switch_router(C, E), make(backend), backend=backend)
    with pytest.raises(ValueError, match="backend='dense'"):
        gradient_penalty(layer, torch.randn(shape), ask)


@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_a_constant_gradient_is_no_reason_for_silence(backend):
    """A result that is summed has a gradient of ones; what else x goes through would hide what is missing."""
    bank = moe.FeedForwardExperts(C, 8, E)
    layer = moe.MoE(moe.hyperplane_router(C, E), bank, nn.Linear(C, C), backend)
    x = torch.randn(5, C, requires_grad=True)
    out = (layer(x) + x.square()).sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(ValueError, match="backend='dense'"):
        grad.square().sum().backward()


@pytest.mark.parametrize("name", CASES)
def test_the_dense_back_end_has_second_derivatives(name):
    make, shape, ask = CASES[name]
    layer = moe.MoE(moe.softmax_router(C, E), make("dense"), backend="dense").double()
    x = torch.randn(shape, dtype=torch.float64)
    grads = gradient_penalty(layer, x, ask)
    assert all(g is not None and g.abs().sum() > 0 for g in grads)
    start = x.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: ask(layer, x), (start,))


def test_a_first_derivative_of_a_graph_that_is_kept_is_the_same():
    layer, x = moe.MoE(moe.switch_router(C, E), moe.FeedForwardExperts(C, 8, E)), torch.randn(5, C)
    grads = []
    for keep in (False, True):
        start = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(layer(start).square().sum(), start, create_graph=keep)[0].detach())
    torch.testing.assert_close(*grads)
