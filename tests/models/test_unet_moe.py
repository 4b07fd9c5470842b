"""What a toy of a U-Net for each class would not do."""

import math

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.models.registry import build
from geomoe.models.stages import train_parts
from geomoe.models.unet_moe import one_against_rest
from geomoe.moe import Replay, RoutingTrace

CLASSES = ("a", "b", "c", "d")


def model(**options):
    torch.manual_seed(0)
    small = {"classes": CLASSES, "width": 4, "depth": 2, "gate": (8, 8), "heads": 2}
    return build("unet_moe", {**small, **options}).eval()


def scene(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, 3, 16, 12, generator=generator)
    return x, torch.randint(-1, 4, (batch, 16, 12), generator=generator)


def says(expert, logit):
    """Make an expert say the same of every pixel."""
    with torch.no_grad():
        expert.head.weight.zero_()
        expert.head.bias.copy_(torch.tensor([0.0, logit]))


def weighs(network, weights):
    """Make the gate give every pixel the same weights."""
    with torch.no_grad():
        network.gate.head.weight.zero_()
        network.gate.head.bias.copy_(torch.tensor(weights).log())


def test_what_experts_say_is_weighed_and_made_to_sum_to_one():
    network = model(classes=("a", "b"))
    for expert, q in zip(network.experts, (0.9, 0.8), strict=True):
        says(expert, math.log(q / (1 - q)))
    weighs(network, (0.2, 0.8))
    found = network(scene()[0]).softmax(1)
    torch.testing.assert_close(found[0, :, 3, 5], torch.tensor([0.2195, 0.7805]), atol=5e-5, rtol=0)


def test_an_even_gate_leaves_the_choice_to_the_experts():
    network = model()
    weighs(network, (0.25,) * 4)
    answers = network.answers(scene()[0])
    assert torch.equal(answers["classes"].argmax(1), answers["experts"].argmax(1))
    assert len(answers["classes"].argmax(1).unique()) > 1


def test_an_expert_is_not_told_of_the_other_classes():
    x, truth = scene()
    swapped = truth.clone()
    swapped[truth == 1], swapped[truth == 3] = 3, 1
    grads = []
    for labels in (truth, swapped):
        network = model().train()
        one_against_rest(network.answers(x), labels).backward()
        grads.append([[p.grad for p in expert.parameters()] for expert in network.experts])
    alike = [all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(*grads, strict=True)]
    assert alike == [True, False, True, False]


def test_pixels_without_a_class_teach_nothing():
    x, truth = scene()
    network = model()
    answers, other = network.answers(x), dict(network.answers(x))
    other["experts"] = torch.where(truth[:, None] < 0, 9.0, other["experts"])
    assert torch.equal(one_against_rest(answers, truth), one_against_rest(other, truth))
    assert one_against_rest(answers, torch.full_like(truth, -1)) == 0


def test_experts_learn_by_entropy_and_dice_of_the_classes_that_are_there():
    said = torch.tensor([[[[2.0, -1.0]], [[-3.0, 0.5]], [[-2.0, -2.0]]]])  # [1, 3, 1, 2]
    truth = torch.tensor([[[0, 1]]])
    p = said.sigmoid()[0, :, 0]
    own = torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    entropy = -(own * p.log() + (1 - own) * (1 - p).log()).mean(1).sum()
    dice = sum(1 - 2 * (p[k] * own[k]).sum() / (p[k] + own[k]).sum() for k in (0, 1))
    torch.testing.assert_close(one_against_rest({"experts": said}, truth), entropy + dice)


def test_each_stage_trains_its_own_part():
    x, truth = scene()
    network = model().train()
    names = [name for name, _ in network.named_parameters()]
    moved = []
    for stage in network.stages:
        train_parts(network, stage.trains, names)
        answers = network.answers(x)
        loss = torch.nn.functional.cross_entropy(answers["classes"], truth, ignore_index=-1)
        (one_against_rest(answers, truth) if stage.losses else loss).backward()
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1).step()
        moved.append({n.split(".")[0] for n, p in network.named_parameters() if not p.equal(before[n])})
        network.zero_grad()
    assert moved == [{"experts"}, {"gate"}, {"experts", "gate"}]
    assert [stage.rate for stage in network.stages] == [1, 1, 0.1]


def test_an_expert_that_says_no_never_wins_whatever_its_weight():
    network = model()
    says(network.experts[2], -1e4)
    weighs(network, (1e-9, 1e-9, 1.0, 1e-9))
    assert not (network(scene()[0]).argmax(1) == 2).any()


def test_the_plan_is_of_pixels_and_can_be_carried_out_again():
    network, (x, _), trace = model(), scene(), RoutingTrace()
    valid = torch.ones(2, 16, 12, dtype=torch.bool)
    valid[:, :3] = False
    found = network(x.masked_fill(~valid[:, None], torch.nan), trace, valid)
    (plan,) = trace
    assert plan.grid == (2, 16, 12)
    assert torch.equal(plan.valid, valid.flatten())
    torch.testing.assert_close(plan.gates.sum(1), valid.flatten().float())
    assert torch.equal(network(x, Replay(trace), valid), found)
    other = RoutingTrace()
    network(scene(seed=1)[0], other, valid)
    assert not torch.equal(network(x, Replay(other), valid), found), "the plan is what weighs"


def test_a_twin_is_one_network_as_large_as_all():
    with torch.device("meta"):
        full, twin = (build("unet_moe", {"twin": twin}) for twin in ("none", "active"))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (full, twin)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
    trace, small = RoutingTrace(), model(twin="parameters")
    assert small(scene()[0], trace).shape == (2, 4, 16, 12)
    assert not trace
    assert (small.stages, small.objectives) == ((), {})
    frozen = model(twin="frozen")
    assert [stage.name for stage in frozen.stages] == ["experts", "joint"]
    assert not any(p.requires_grad for p in frozen.gate.parameters())


def test_bad_options_are_refused():
    for options, said in (({"heads": 3}, r"divisor of gate\[-1\]=8"), ({"twin": "gated"}, "would all be 1")):
        with pytest.raises(GeomoeError, match=said):
            model(**options)
