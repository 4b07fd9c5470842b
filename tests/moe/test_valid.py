"""Rows that are not there: as if they were not."""

from dataclasses import replace

import pytest
import torch

from geomoe import moe
from tests.moe.routers import CHANNELS, EXPERTS, ROUTERS, router, rows_for

N = 40
VALID = torch.arange(N) % 3 != 1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ROUTERS)
def test_valid_rows_are_routed_as_if_they_were_alone(name, training):
    case, made = ROUTERS[name], router(name).train(training)
    context = torch.randn(N, 3) if name == "conditioned" else None
    rows = rows_for(case, N)
    torch.manual_seed(1)
    alone = made(rows[VALID], None, None if context is None else context[VALID])
    torch.manual_seed(1)
    plan = made(rows, (4, 10), context, VALID)
    assert plan.grid == (4, 10)
    assert torch.equal(plan.valid, VALID)
    among = plan.of_valid()
    assert among.digest() == replace(alone, kept=among.kept).digest()
    assert torch.equal(among.kept, torch.ones_like(among.kept) if alone.kept is None else alone.kept)
    assert (plan.gates[~VALID] == 0).all()
    assert (plan.main[~VALID] == -1).all()
    bank = moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)
    assert (moe.dispatch(bank, torch.randn(N, CHANNELS), plan)[~VALID] == 0).all()


def test_what_is_not_valid_counts_in_no_term_and_no_figure():
    made = moe.noisy_top_k_router(CHANNELS, EXPERTS)
    torch.nn.init.normal_(made.score.gate.weight)
    rows = torch.randn(N, CHANNELS)
    rows[~VALID] = 100.0
    torch.manual_seed(1)
    alone = made(rows[VALID])
    torch.manual_seed(1)
    plan = made(rows, valid=VALID)
    tasks = torch.arange(N) % 2
    terms = {
        "importance": moe.importance_loss,
        "load": moe.load_loss,
        "switch": moe.switch_loss,
        "z": moe.z_loss,
        "entropy": moe.entropy_loss,
        "clusters": lambda p: moe.cluster_variance_loss(p, (0, 0, 1, 1)),
        "information": lambda p: moe.mutual_information_loss(
            p, tasks if p.valid is not None else tasks[VALID]
        ),
        "local": lambda p: moe.local_entropy_loss(p, tasks if p.valid is not None else tasks[VALID]),
        "global": lambda p: moe.global_entropy_loss(p, tasks if p.valid is not None else tasks[VALID]),
    }
    for name, term in terms.items():
        assert float(term(plan).detach()) == pytest.approx(float(term(alone).detach()), rel=1e-5), name
    for name, value in vars(moe.routing_health(plan)).items():
        assert value == pytest.approx(vars(moe.routing_health(alone))[name]), name
    assert moe.agreement(plan, plan) == 1
    other = made(torch.randn(N, CHANNELS), valid=VALID)
    expected = moe.agreement(plan.of_valid(), other.of_valid())
    assert moe.agreement(plan, other) == pytest.approx(expected)
    assert expected < 1


def test_what_is_not_valid_moves_no_bias():
    rows = torch.randn(N, CHANNELS)
    biases = []
    for valid in (VALID, None):
        bias = moe.LossFreeBias((EXPERTS,))
        torch.manual_seed(0)
        made = moe.Router(moe.LinearScore(CHANNELS, EXPERTS), prefer=[bias])
        made.rebalance(made(rows if valid is not None else rows[VALID], valid=valid), 0.1)
        biases.append(bias.bias)
    assert torch.equal(*biases)
    assert biases[0].abs().sum() > 0


def test_places_of_each_image_are_for_its_valid_rows():
    valid = torch.ones(2, 10, dtype=torch.bool)
    valid[0, 2:] = False  # two rows in the first image: one place an expert; ten in the second: three
    made = moe.Router(
        moe.LinearScore(CHANNELS, EXPERTS), capacity=moe.Capacity(1.0, evaluation_factor=1.0, per_sample=True)
    )
    rows = torch.randn(1, CHANNELS).expand(20, -1)  # all want one expert
    plan = made(rows, (2, 10), valid=valid.flatten())
    assert plan.kept.view(2, 10).sum(1).tolist() == [1, 3]


def test_layers_pass_it_on():
    bank = moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)
    rows = torch.randn(N, CHANNELS)

    def made():
        return moe.switch_router(CHANNELS, EXPERTS).eval()

    trace = moe.RoutingTrace()
    layers = [
        moe.MoE(made(), bank)(rows, valid=VALID, trace=trace),
        *moe.MultiGate([made(), made()], bank)(rows, valid=VALID, trace=trace),
        *moe.CustomisedGates([bank], bank, [moe.switch_router(CHANNELS, 2 * EXPERTS)])(
            [rows, rows], valid=VALID, trace=trace
        ),
        moe.PreGated(made(), [], [bank])(rows, valid=VALID, trace=trace) - rows,
        moe.OutputGatedMoE(bank, moe.confidence_logits)(rows, valid=VALID, trace=trace),
    ]
    for out in layers:
        assert (out[~VALID] == 0).all()
        assert (out[VALID].abs().sum(1) > 0).all()
    assert all(torch.equal(plan.valid, VALID) for plan in trace)


def test_soft_slots_and_merged_experts_leave_out_what_is_not_valid():
    layer = moe.SoftMoE(moe.FeedForwardExperts(CHANNELS, 16, EXPERTS), CHANNELS, 2)
    tokens, valid = torch.randn(3, 10, CHANNELS), torch.ones(3, 10, dtype=torch.bool)
    valid[0, 6:] = valid[2] = False
    tokens[~valid] = 1000.0
    trace = moe.RoutingTrace()
    out = layer(tokens, trace=trace, valid=valid)
    torch.testing.assert_close(out[0, :6], layer(tokens[:1, :6])[0])
    torch.testing.assert_close(out[1], layer(tokens[1:2])[0])
    assert (out[~valid] == 0).all()
    assert torch.equal(trace[0].valid, valid.flatten())
    merged = moe.MergedMoE(
        moe.softmax_router(CHANNELS, EXPERTS), moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)
    )
    samples = torch.tensor([True, False, True])
    out = merged(tokens, signals=torch.randn(3, CHANNELS), valid=samples)
    assert (out[1] == 0).all()
    assert (out[0] != 0).any()


def test_nothing_valid_is_a_plan_of_nothing():
    made = moe.switch_router(CHANNELS, EXPERTS)
    plan = made(torch.randn(N, CHANNELS), valid=torch.zeros(N, dtype=torch.bool))
    bank = moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)
    assert (moe.dispatch(bank, torch.randn(N, CHANNELS), plan) == 0).all()
    assert moe.routing_health(plan).experts_per_row == 0
    with pytest.raises(ValueError, match=r"valid \[3\].*expected \[N\] of bool"):
        made(torch.randn(N, CHANNELS), valid=torch.ones(3, dtype=torch.bool))


def unseen():
    """Rows of which those that are not valid are NaN, as nodata often is."""
    return torch.randn(N, CHANNELS).masked_fill(~VALID[:, None], float("nan"))


LAYERS = {
    **{
        backend: lambda bank, backend=backend: moe.MoE(
            moe.switch_router(CHANNELS, EXPERTS), bank, backend=backend
        )
        for backend in ("dense", "loop", "grouped")
    },
    "shared": lambda bank: moe.MoE(
        moe.switch_router(CHANNELS, EXPERTS), bank, torch.nn.Linear(CHANNELS, CHANNELS)
    ),
    "fallback": lambda bank: moe.MoE(moe.Fallback(moe.switch_router(CHANNELS, EXPERTS), CHANNELS), bank),
    "output_gated": lambda bank: moe.OutputGatedMoE(bank, moe.agreement_logits),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_stands_in_rows_that_are_not_valid_reaches_nothing(name):
    torch.manual_seed(0)
    layer, rows = LAYERS[name](moe.FeedForwardExperts(CHANNELS, 16, EXPERTS)), unseen()
    done = []
    for x, valid in ((rows, VALID), (rows[VALID], None)):
        layer.zero_grad()
        out = layer(x, valid=valid)
        out.square().sum().backward()
        done.append([out if valid is None else out[valid], *(p.grad for p in layer.parameters())])
        assert valid is None or (out[~valid] == 0).all()
    for a, b in zip(*done, strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_not_valid_reaches_no_task_slot_or_sample():
    bank, rows = moe.FeedForwardExperts(CHANNELS, 16, EXPERTS), unseen()
    levels = moe.CustomisedGates([bank], bank, [moe.switch_router(CHANNELS, 2 * EXPERTS)])
    (out,) = levels([rows, rows], valid=VALID)
    slots = moe.SoftMoE(bank, CHANNELS)
    soft = slots(rows[None], valid=VALID[None])[0]
    torch.testing.assert_close(soft[VALID], slots(rows[None, VALID])[0])
    merged = moe.MergedMoE(moe.softmax_router(CHANNELS, EXPERTS), bank)(rows[:, None], rows, valid=VALID)
    for result in (out, soft, merged[:, 0]):
        assert (result[~VALID] == 0).all()
        assert result.isfinite().all()
    (out.sum() + soft.sum() + merged.sum()).backward()
    assert all(p.grad.isfinite().all() for p in bank.parameters())


def test_a_shared_expert_takes_its_statistics_of_valid_rows():
    norm = torch.nn.BatchNorm1d(CHANNELS, momentum=None)
    layer = moe.MoE(moe.switch_router(CHANNELS, EXPERTS), moe.FeedForwardExperts(CHANNELS, 16, EXPERTS), norm)
    rows = torch.randn(N, CHANNELS)
    layer(rows, valid=VALID)
    torch.testing.assert_close(norm.running_mean, rows[VALID].mean(0))


def test_a_pass_with_other_valid_rows_is_no_replay():
    layer = moe.MoE(moe.switch_router(CHANNELS, EXPERTS), moe.FeedForwardExperts(CHANNELS, 16, EXPERTS))
    rows, trace = torch.randn(N, CHANNELS), moe.RoutingTrace()
    expected = layer(rows, valid=VALID, trace=trace)
    assert torch.equal(layer(rows, valid=VALID, trace=moe.Replay(trace, "soft")), expected)
    for mode in (None, "soft"):
        with pytest.raises(ValueError, match="other rows are valid"):
            layer(rows, trace=moe.Replay(trace, mode))
