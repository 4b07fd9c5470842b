"""What holds for every router, whatever it is made of."""

import io

import pytest
import torch

from geomoe import moe
from tests.moe.routers import CHANNELS, EXPERTS, HAS_NO_SINGLE_EXPERT, ROUTERS, router, rows_for

ROWS = 40
every_router = pytest.mark.parametrize("name", ROUTERS)


@every_router
def test_the_plan_is_well_formed(name):
    case, made = ROUTERS[name], router(name)
    context = torch.randn(ROWS, 3) if name == "conditioned" else None
    plan = made.train()(rows_for(case, ROWS), (5, 8), context)
    k = plan.top_k
    assert plan.experts.shape == plan.weights.shape == (ROWS, k)
    assert plan.experts.dtype == torch.int64
    assert plan.probabilities.shape == plan.logits.shape == (ROWS, EXPERTS)
    assert 0 <= int(plan.experts.min()) <= int(plan.experts.max()) < EXPERTS
    torch.testing.assert_close(plan.probabilities.sum(1), torch.ones(ROWS))
    assert plan.grid == (5, 8)
    assert all(len(set(row)) == k for row in plan.experts.tolist())  # no expert twice
    assert torch.isfinite(plan.weights).all()
    kept = torch.ones_like(plan.weights, dtype=torch.bool) if plan.kept is None else plan.kept
    if plan.dropped is not None:  # a full expert may be a row's first choice
        kept = kept | plan.dropped
    if name not in (
        "hash",
        "frozen",
        "stochastic",
        "loss_free",
        "deepseek",
    ):  # which do not choose by their belief
        chosen = plan.weights.masked_fill(~kept, -1.0).sort(1, descending=True).values
        assert torch.equal(chosen, plan.weights.masked_fill(~kept, -1.0)) or name == "fallback"


@every_router
def test_evaluation_is_deterministic(name):
    case, made = ROUTERS[name], router(name).eval()
    rows = rows_for(case, ROWS)
    assert made(rows).digest() == made(rows).digest()


@every_router
def test_a_row_does_not_depend_on_the_others_unless_it_says_so(name):
    case, made = ROUTERS[name], router(name).eval()
    assert made.row_independent == case.alone
    if not case.alone:
        return
    rows = rows_for(case, ROWS)
    whole, part = made(rows), made(rows[7:12])
    assert torch.equal(whole.experts[7:12], part.experts)
    torch.testing.assert_close(whole.gates[7:12], part.gates)


@every_router
def test_a_gradient_reaches_every_parameter(name):
    case, made = ROUTERS[name], router(name).train()
    if not case.learns:
        wanted = {"dynamic_k"}  # its predictor learns norms, by norm_loss
        assert name in wanted or not list(made.parameters())
        return
    for seed in range(5):  # of several calls: stochastic parts may leave a parameter out of one
        torch.manual_seed(seed)
        rows = rows_for(case, 200)
        plan = made(rows, context=torch.randn(200, 3) if name == "conditioned" else None)
        (plan.gates * torch.randn(200, EXPERTS)).sum().backward()
    without = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@every_router
def test_state_survives_save_and_load(name):
    case, made = ROUTERS[name], router(name).eval()
    rows = rows_for(case, ROWS)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    other = router(name, seed=1).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(rows).digest() == made(rows).digest()


@every_router
def test_one_expert_is_the_dense_block(name):
    if name in HAS_NO_SINGLE_EXPERT:
        with pytest.raises(ValueError, match=r"top_k=2: there are 1 experts|2 or more|no multiple"):
            router(name, 1)
        return
    case, made = ROUTERS[name], router(name, 1).eval()
    if name == "base":
        pytest.skip("BASE weighs by a sigmoid, also a single expert")
    if name == "fallback":
        made.threshold.fill_(torch.inf)  # a row that falls back is not answered by an expert
    rows = torch.randn(ROWS, CHANNELS)
    bank = moe.FeedForwardExperts(CHANNELS, 16, 1)
    out = moe.MoE(made, bank)(rows, rows_for(case, ROWS))
    torch.testing.assert_close(out, bank.expert(0, rows))


@every_router
def test_permuting_rows_permutes_results(name):
    case, made = ROUTERS[name], router(name).eval()
    signals, rows = rows_for(case, ROWS), torch.randn(ROWS, CHANNELS)
    layer = moe.MoE(made, moe.FeedForwardExperts(CHANNELS, 16, EXPERTS))
    order = torch.randperm(ROWS)
    torch.testing.assert_close(layer(rows[order], signals[order]), layer(rows, signals)[order])


@every_router
def test_no_rows_are_fine(name):
    case, made = ROUTERS[name], router(name).eval()
    layer = moe.MoE(made, moe.FeedForwardExperts(CHANNELS, 16, EXPERTS))
    assert layer(torch.zeros(0, CHANNELS), rows_for(case, 0)).shape == (0, CHANNELS)


@every_router
def test_back_ends_agree(name):
    case, made = ROUTERS[name], router(name).eval()
    rows = torch.randn(ROWS, CHANNELS)
    plan = made(rows_for(case, ROWS))
    bank = moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)
    dense = moe.dispatch(bank, rows, plan, "dense")
    for backend in ("loop", "grouped"):
        torch.testing.assert_close(moe.dispatch(bank, rows, plan, backend), dense, atol=1e-5, rtol=1e-5)


@every_router
def test_executed_flops_are_those_declared(name):
    case, made = ROUTERS[name], router(name).eval()
    rows = torch.randn(ROWS, CHANNELS)
    plan = made(rows_for(case, ROWS))
    bank = moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)
    executed = moe.count_flops(lambda: moe.dispatch(bank, rows, plan, "loop"))
    assert executed == moe.active_flops(bank, plan)
    if case.dense and name != "dselect":
        assert executed == ROWS * EXPERTS * 2 * (8 * 16 + 16 * 8)


@every_router
@pytest.mark.parametrize("backend", ["loop", "grouped"])
def test_gradients_of_a_layer_agree_with_the_dense_one(name, backend):
    case, made = ROUTERS[name], router(name).eval()
    signals, start = rows_for(case, ROWS), torch.randn(ROWS, CHANNELS)
    grads = []
    for way in ("dense", backend):
        torch.manual_seed(0)
        layer = moe.MoE(made, moe.FeedForwardExperts(CHANNELS, 16, EXPERTS), backend=way)
        layer.zero_grad()
        rows = start.clone().requires_grad_()
        layer(rows, signals).square().sum().backward()
        grads.append([rows.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
        grads[-1] = [g.clone() for g in grads[-1]]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@every_router
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_another_precision_route(name, dtype):
    case = ROUTERS[name]
    layer = moe.MoE(router(name).eval(), moe.FeedForwardExperts(CHANNELS, 16, EXPERTS))
    signals, rows = rows_for(case, ROWS), torch.randn(ROWS, CHANNELS).to(dtype)
    plan = layer.router(signals)
    layer.to(dtype)
    signals = signals if case.ids else signals.to(dtype)
    assert layer(rows, signals).dtype == dtype
    if dtype == torch.float64:
        again = layer.router(signals)
        assert moe.agreement(plan, again) > 0.99  # and the gates of a half model stay in single precision


class Reordered(moe.Score):
    """A score whose experts stand in another order."""

    def __init__(self, score, order):
        super().__init__(score.group_sizes)
        self.score, self.order = score, order
        self.takes_ids = score.takes_ids

    def forward(self, rows, context=None):
        return self.score(rows)[:, self.order]


@every_router
def test_permuting_experts_with_their_gates_changes_nothing(name):
    case, made = ROUTERS[name], router(name).eval()
    order = torch.tensor([1, 0, 3, 2])  # inside the groups of the dual router
    bank = moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)
    signals, rows = rows_for(case, ROWS), torch.randn(ROWS, CHANNELS)
    before = moe.MoE(made, bank)(rows, signals)
    inner = made.router if isinstance(made, moe.Fallback) else made
    inner.score = Reordered(inner.score, order)
    with torch.no_grad():
        states = [state for part in inner.prefer for state in part.buffers() if state.shape == (EXPERTS,)]
        for stack in (*bank.parameters(), *states):
            stack.copy_(stack[order].clone())
    torch.testing.assert_close(moe.MoE(made, bank)(rows, signals), before, atol=1e-5, rtol=1e-4)


def test_fused_attention_is_counted():
    """Two products of 5 x 7 pairs, 8 deep, for each of 2 x 3 heads."""
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    with torch.inference_mode():
        found = moe.count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k))
    assert found == 2 * 2 * (2 * 3) * (5 * 7) * 8
