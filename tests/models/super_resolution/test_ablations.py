"""The ablations of MFG-HMoE: what each option leaves out, and what it leaves as it was."""

from pathlib import Path

import pytest
import torch

from geomoe import GeomoeError, load
from geomoe.moe import RoutingTrace
from tests.models.test_models import tiny


def count(model):
    return sum(p.numel() for p in model.parameters())


def planned(model, size=9):
    trace = RoutingTrace()
    with torch.inference_mode():
        out = model.eval()(torch.rand(1, 3, size, size), trace=trace)
    return out, trace


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"kernel_sizes": (1, 3, 5), "experts_per_group": (3, 4, 3)}, (3, 4, 3)),
        ({"kernel_sizes": (3,), "experts_per_group": 1}, (1,)),
        ({"kernel_sizes": (3,), "experts_per_group": 1, "router": "single"}, (1,)),
        ({"kernel_sizes": (3,), "experts_per_group": 16, "signals": "last"}, (16,)),
        ({"router": "single"}, (2, 2)),
    ],
)
def test_every_row_of_the_ablation_can_be_made(options, sizes):
    out, trace = planned(tiny("mfg_hmoe", **options))
    assert out.isfinite().all()
    assert trace[0].group_sizes == sizes
    assert trace[0].num_experts == sum(sizes)


def test_one_number_of_experts_means_the_same_in_each_group():
    one, each = tiny("mfg_hmoe", experts_per_group=3), tiny("mfg_hmoe", experts_per_group=(3, 3))
    x = torch.rand(1, 3, 6, 6)
    assert torch.equal(one.eval()(x), each.eval()(x))


def test_a_lone_expert_is_the_dense_head():
    """With one expert its probability is 1 and its choice is none."""
    alone = tiny("mfg_hmoe", kernel_sizes=(3,), experts_per_group=1).eval()
    dense = tiny("mfg_hmoe", head="dense").eval()
    state = {n: v for n, v in alone.state_dict().items() if n in dense.state_dict()}
    bank = alone.upsample.routed.bank.groups[0]
    state["upsample.one.conv.weight"], state["upsample.one.conv.bias"] = bank.kernels()[0], bank.bias[0]
    dense.load_state_dict(state)
    x = torch.rand(1, 3, 8, 7)
    with torch.inference_mode():
        torch.testing.assert_close(dense(x), alone(x), atol=1e-5, rtol=1e-5)


def test_the_gated_head_is_the_dense_one_times_the_first_choice():
    gated = tiny("mfg_hmoe", head="gated").eval()
    features, signals = torch.randn(1, 12, 5, 6), torch.randn(1, 8, 5, 6)
    head, trace = gated.upsample, RoutingTrace()
    with torch.inference_mode():
        x = torch.nn.functional.leaky_relu(head.narrow(features))
        found = head.one(x, signals, trace)
        gate = trace[0].probabilities.gather(1, trace[0].experts).view(1, 1, 5, 6)
        torch.testing.assert_close(found, head.one.conv(x) * gate)
    assert gate.std() > 0
    hard = tiny("mfg_hmoe", head="gated", routing="hard").eval()
    with torch.inference_mode():
        assert torch.equal(hard.upsample.one(x, signals, None), hard.upsample.one.conv(x))


def test_the_gate_of_the_twin_is_that_of_the_routed_model():
    routed, gated = tiny("mfg_hmoe"), tiny("mfg_hmoe", head="gated")
    theirs = {n.replace("routed.", "one."): v.shape for n, v in routed.state_dict().items() if "router" in n}
    assert theirs == {n: v.shape for n, v in gated.state_dict().items() if "router" in n}


@pytest.mark.parametrize(
    "options",
    [{"head": "gated"}, {"head": "dense"}, {"router": "single"}, {"signals": "last"}],
    ids=lambda options: "-".join(options.values()),
)
def test_every_parameter_of_a_control_receives_a_gradient(options):
    model = tiny("mfg_hmoe", drop_path=0.0, **options)
    model(torch.rand(2, 3, 24, 24)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_controls_have_fewer_parameters_and_no_plan_where_nothing_is_routed():
    # One 3x3 expert of four, two of which are 1x1: 6 channels to 4 * 2^2.
    expert, bias = 6 * 9 * 16 + 16, 16
    whole, gated, dense = (tiny("mfg_hmoe", head=head) for head in ("routed", "gated", "dense"))
    assert count(whole) - count(gated) == expert + 2 * (6 * 16 + bias)
    router = count(gated.upsample.one.router)
    assert count(gated) - count(dense) == count(gated.aggregate) + router
    assert len(planned(dense)[1]) == 0
    assert len(planned(gated)[1]) == 1


def test_the_last_level_alone_is_seen():
    model = tiny("mfg_hmoe", signals="last")
    assert len(model.aggregate.levels) == 1
    assert count(tiny("mfg_hmoe")) - count(model) == 12 * 9 * 8 + 8  # a convolution of 12 to 8 channels


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"experts_per_group": (2, 2, 2)}, "one for each of kernel_sizes"),
        ({"experts_per_group": 0}, "experts_per_group=0"),
        ({"experts_per_group": (2, 0)}, "experts_per_group=\\(2, 0\\)"),
        ({"router": "triple"}, "router='triple'"),
        ({"head": "sparse"}, "head='sparse': expected routed or gated or dense"),
        ({"signals": "first"}, "signals='first'"),
        ({"router": "single", "top_k": 9}, "top_k=9"),
    ],
)
def test_bad_ablations_are_named(options, said):
    with pytest.raises(GeomoeError, match=said):
        tiny("mfg_hmoe", **options)


def test_weights_from_before_these_options_load():
    loaded = load(str(Path(__file__).parent / "weights_of_0_1" / "mfg_hmoe_light_x2.safetensors"))
    assert "head" not in loaded.card.config
    assert loaded.model.config.head == "routed"
