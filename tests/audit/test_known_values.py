"""Where the right expert is known, so is what an audit has to find."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from geomoe.audit.counterfactuals import Effect, counterfactuals
from geomoe.audit.dependence import Joint, _chance, _shifted, dependence, mutual_information, of_samples
from geomoe.audit.plans import Shuffle, changed, constant, most_used
from geomoe.audit.usage import usage
from geomoe.evaluation.statistics import paired_interval
from geomoe.moe import Router, RoutingPlan, TopK
from geomoe.moe.telemetry import load
from tests.audit.made import plan_of
from tests.audit.planted import EXPERTS, planted, score


def blind_to_the_last():
    """A router that takes the last mode for the first one."""
    gate = score()
    with torch.no_grad():
        weight = next(p for p in gate.parameters() if p.dim() == 2)
        weight[0, EXPERTS - 1], weight[EXPERTS - 1, EXPERTS - 1] = 5.0, 0.0
    return Router(gate, TopK(1))


def modes(subject):
    """``[N, H, W]``, of every pixel."""
    return torch.stack([sample["image"][:EXPERTS].argmax(0) for _, sample in subject.samples.samples])


def test_mutual_information_of_tables_that_one_can_work_out():
    assert mutual_information(10 * np.eye(4)) == pytest.approx(2)
    assert mutual_information(np.ones((3, 5))) == pytest.approx(0)
    # 1 - H(1/4), two values.
    assert mutual_information(np.array([[3.0, 1.0], [1.0, 3.0]])) == pytest.approx(0.188722, abs=1e-6)
    assert mutual_information(np.stack([np.eye(2), np.ones((2, 2))])).tolist() == pytest.approx([1, 0])
    assert mutual_information(np.zeros((2, 2))) == 0


def test_purity_and_shares_of_a_table():
    joint = Joint(["x", "y"], np.array([[6.0, 2.0, 0.0], [0.0, 0.0, 8.0]]), np.zeros(1))
    assert (joint.purity, joint.blind) == (1, 0.5)
    assert (joint.information, joint.of_fact) == pytest.approx((1, 1))
    assert joint.of_routing == pytest.approx(1 / 1.405639, rel=1e-5)  # H(6, 2, 8)
    assert joint.copied == pytest.approx(1)


def test_a_perfect_router_knows_its_mode_and_not_the_class():
    data = dependence(planted(count=48)).data
    of = data["mode"]["layers"]["layer 0"]
    assert mutual_information(np.array(of["counts"])) == pytest.approx(2)
    assert (of["purity"], of["purity_of_a_guess"]) == (1, 0.25)
    assert data["mode"]["p"] == pytest.approx(0.001 * len(data))
    assert data["class"]["p"] > 0.05


@pytest.mark.parametrize("seed", range(3))
def test_the_gap_to_the_oracle_is_what_the_router_is_blind_to(seed):
    subject = planted(blind_to_the_last(), dense=True, side=6, count=12, seed=seed)
    blind = float((modes(subject) == EXPERTS - 1).float().mean())
    found = counterfactuals(subject).data
    oracle = found["oracle"]["layer 0"]
    assert (oracle["learned"], oracle["other"]) == pytest.approx((1 - blind, 1))
    assert oracle["gain"] == pytest.approx(-blind)
    assert oracle["chosen_for"] == "rows"
    low, high = oracle["interval_95"]
    assert low < -blind < high


def test_the_oracle_of_samples_is_right_where_one_expert_is():
    subject = planted(blind_to_the_last(), count=16)
    oracle = counterfactuals(subject).data["oracle"]["layer 0"]
    assert (oracle["learned"], oracle["other"], oracle["chosen_for"]) == (0.75, 1, "samples")


def test_other_plans_cost_what_chance_says():
    subject = planted(dense=True, side=8, count=40)
    where = modes(subject)
    counts = torch.stack([(where == m).sum((1, 2)) for m in range(EXPERTS)], 1).double()  # [N, modes]
    share = counts / counts.sum(1, keepdim=True)
    whole = share.mean(0)
    arms = counterfactuals(subject).data["arms"]
    expected = {
        "random": 1 / EXPERTS,
        "shuffled": float(share.square().sum(1).mean()),
        "other_sample": float(whole.square().sum()),
        "most_used": float(whole.max()),
        "gates_kept": float(whole.square().sum()),
    }
    for name, right in expected.items():
        assert arms[name]["learned"] == 1
        assert arms[name]["other"] == pytest.approx(right, abs=0.04), name
    assert arms["most_used"]["other"] == pytest.approx(expected["most_used"])


def test_use_is_what_there_is_to_do():
    subject = planted(side=2, count=40, modes=2)
    layer = usage(subject).data["layer 0"]
    assert (layer["rows"], layer["choices"], layer["dead"]) == (160, [80, 80, 0, 0], [2, 3])
    assert (layer["load_cv"], layer["gini"]) == pytest.approx((1, 0.5))
    assert layer["marginal_entropy"] > 0.5 > layer["conditional_entropy"]


def plans(seed=0, samples=4, side=3):
    rng = torch.Generator().manual_seed(seed)
    plan = plan_of(
        torch.randint(EXPERTS, (samples * side**2,), generator=rng), EXPERTS, (samples, side, side)
    )
    weights = torch.rand(plan.num_rows, 1, generator=rng)
    return RoutingPlan(
        plan.experts, weights, plan.probabilities, plan.logits, plan.group_sizes, plan.grid
    ), samples


def test_a_shuffle_keeps_the_use_of_each_sample():
    plan, samples = plans()
    other = changed(plan, samples, Shuffle(0).within)
    assert not torch.equal(plan.experts, other.experts)
    for mine, theirs in zip(plan.samples(), other.samples(), strict=True):
        assert torch.equal(load(mine), load(theirs))
        assert mine.weights.sort(0).values.tolist() == theirs.weights.sort(0).values.tolist()


def test_another_samples_plan_is_taken_as_it_is_and_never_ones_own():
    plan, samples = plans()
    digests = [each.digest() for each in plan.samples()]
    for seed in range(5):
        other = changed(plan, samples, Shuffle(seed).across(plan, samples))
        taken = [each.digest() for each in other.samples()]
        assert sorted(taken) == sorted(digests)
        assert all(mine != theirs for mine, theirs in zip(digests, taken, strict=True))


def test_a_plan_of_another_size_is_taken_by_place():
    small, _ = plans(samples=1, side=2)
    large, _ = plans(samples=1, side=4)
    other = changed(large, 1, Shuffle(0).across(small, 1))
    assert torch.equal(
        other.experts.view(4, 4), small.experts.view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    )


def test_rows_that_are_not_valid_stay_so():
    plan, samples = plans()
    valid = torch.arange(plan.num_rows) % 3 != 0
    masked = plan.spread(valid.nonzero().squeeze(1), (int(valid.sum()),)).among(valid, plan.grid)
    draw = Shuffle(0)
    for change in (draw.within, draw.uniform, draw.across(masked, samples), most_used([1])):
        other = changed(masked, samples, change)
        assert torch.equal(other.valid, valid)
        assert other.grid == plan.grid
        assert (other.main[~valid] == -1).all()
        assert (other.main[valid] >= 0).all()


def test_a_constant_plan_has_one_expert_with_all_the_weight():
    plan, samples = plans()
    other = changed(plan, samples, lambda rows, _: constant(rows, 2))
    assert other.main.unique().tolist() == [2]
    assert torch.equal(other.gates.sum(1), plan.gates.sum(1))


@pytest.mark.slow
def test_independent_facts_are_called_dependent_at_the_nominal_rate():
    called = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        choices = rng.multinomial(9, rng.dirichlet(np.ones(EXPERTS), 30))
        facts = [str(value) for value in rng.integers(3, size=30)]
        called += _chance({"layer": of_samples(facts, choices.astype(float), rng)}) <= 0.05
    assert 2 <= called <= 19  # of 200 at 5 %: outside of it once in a thousand


@pytest.mark.slow
def test_smooth_maps_that_are_independent_are_called_dependent_at_the_nominal_rate():
    # Neighbours are alike in both; exchanged pixel by pixel almost all of these would be called dependent.
    called = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        fields = [gaussian_filter(rng.normal(size=(3, 40, 40)), (0, 3, 3))[:, 6:34, 6:34] for _ in range(2)]
        expert, label = (field.argmax(0) for field in fields)
        counts = _shifted(expert, label, 3, 3, rng)
        joint = Joint(["0", "1", "2"], counts[0], mutual_information(counts[1:]))
        called += _chance({"layer": joint}) <= 0.05
    assert called <= 24


def test_the_smallest_effect_is_seen_in_four_of_five_cases():
    rng = np.random.default_rng(0)
    nothing = paired_interval(rng.normal(size=200))
    smallest = Effect(nothing, nothing, 0.0, 0.0, 200).smallest
    assert smallest == pytest.approx(2.8 / np.sqrt(200), rel=0.1)
    seen = [paired_interval(rng.normal(smallest, size=200)).low > 0 for _ in range(1000)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.06)
