"""What a toy of MambaMoE would not do, and what its released program does wrong."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.models.mamba_moe import DirectionExpert, MambaMoE, MambaMoEConfig, Spectral, uncertain_labels
from geomoe.models.registry import build
from geomoe.moe import Direction, RoutingTrace

SMALL = {"bands": 6, "classes": ("a", "b", "c"), "width": 8, "inner": (2, 2, 2, 2), "state": 4, "head": 8}


def small(**options: object) -> MambaMoE:
    torch.manual_seed(0)
    return MambaMoE(MambaMoEConfig(**{**SMALL, **options}))  # type: ignore[arg-type]


def scene(height: int = 21, width: int = 14) -> Tensor:
    return torch.rand(1, 6, height, width, generator=torch.Generator().manual_seed(1))


def test_two_evaluations_are_equal_and_every_parameter_learns() -> None:
    model = small()
    named = dict(model.named_parameters())
    model.train()
    answers = model.answers(scene())
    torch.stack([answer.square().sum() for answer in answers.values()]).sum().backward()
    unchosen = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()}
    chosen_only = {name for name in unchosen if ".spatial.bank.experts." not in name}
    assert not chosen_only  # experts that no scene chose have nothing to learn from it
    assert dict(model.named_parameters()).keys() == named.keys()  # none was made while it ran
    model.eval()
    assert torch.equal(model(scene()), model(scene()))


def test_training_and_evaluation_give_one_result() -> None:
    model = small()
    assert torch.equal(model.train()(scene()), model.eval()(scene()))


@pytest.mark.parametrize("direction", ["rows", "rows_reversed", "columns", "columns_reversed"])
def test_a_scan_without_memory_leaves_pixels_in_their_places(direction: str) -> None:
    torch.manual_seed(0)
    expert = DirectionExpert(3, 2, 4, direction)  # type: ignore[arg-type]
    with torch.no_grad():
        expert.scan.log_a.fill_(20.0)  # forgets everything at once
        expert.conv.weight.zero_()
        expert.conv.weight[:, :, 1, 1] = 1  # type: ignore[index]
    x = torch.cat([torch.rand(1, 3, 4, 7), torch.ones(1, 1, 4, 7)], 1)
    alone = torch.cat([expert(x[:, :, i : i + 1, j : j + 1]) for i in range(4) for j in range(7)], 2)
    torch.testing.assert_close(expert(x).flatten(2), alone.flatten(2))


def test_rows_and_reversed_rows_differ_unless_the_scene_is_a_palindrome() -> None:
    torch.manual_seed(0)
    forwards, backwards = (DirectionExpert(3, 2, 4, way) for way in ("rows", "rows_reversed"))  # type: ignore[arg-type]
    backwards.load_state_dict(forwards.state_dict())
    for expert in (forwards, backwards):
        nn.init.constant_(expert.conv.weight, 0.1)  # alike from all sides
        nn.init.ones_(expert.scan.to_step.bias)  # steps so large, and states so lasting, that it shows
        nn.init.constant_(expert.scan.log_a, -3.0)
    half = 9 * torch.rand(1, 3, 2, 5)
    asymmetric = torch.cat([9 * torch.rand(1, 3, 4, 5), torch.ones(1, 1, 4, 5)], 1)
    palindrome = torch.cat([torch.cat([half, half.flip(2, 3)], 2), torch.ones(1, 1, 4, 5)], 1)
    assert not torch.allclose(forwards(asymmetric), backwards(asymmetric), atol=1e-3)
    torch.testing.assert_close(forwards(palindrome), backwards(palindrome).flip(2, 3))


def test_an_expert_keeps_its_direction_whatever_its_rank() -> None:
    model = small(top_k=4)
    experts = model.blocks[0].mix.spatial.bank.experts  # type: ignore[union-attr]
    assert tuple(expert.direction for expert in experts) == get_args(Direction)
    before = model(scene())
    router = model.blocks[0].mix.spatial.router  # type: ignore[union-attr]
    with torch.no_grad():  # the order of ranks is turned round where all are carried out, the sum stays
        trace = RoutingTrace()
        model(scene(), trace)
        ranks = trace[0].experts[0].tolist()
        assert sorted(ranks) == [0, 1, 2, 3]
        router.score.gate.weight.mul_(-1)
        turned = RoutingTrace()
        after = model(scene(), turned)
    assert turned[0].experts[0].tolist() == ranks[::-1]
    weights = trace[0].gates + turned[0].gates
    assert weights.shape == (1, 4)
    assert not torch.equal(before, after)  # by other weights of the same experts


def test_spectral_scan_is_of_every_pixel_by_itself_at_any_size() -> None:
    torch.manual_seed(0)
    scan = Spectral(2, 4, backwards=True)
    x = torch.rand(2, 8, 3, 5)
    torch.testing.assert_close(scan(x)[1, :, 2, 4], scan(x[1:, :, 2:, 4:]).flatten())


def test_uncertainty_is_the_entropy_over_all_classes() -> None:
    # Of three pixels one is even (1), one is sure (0), one between; a label is kept where a number drawn
    # from 0 to 1 lies below. p ln p of the largest alone would call the even one surer than the one between.
    p = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0, 0], [0.4, 0.35, 0.25]])
    logits = p.clamp_min(1e-12).log().T.reshape(1, 3, 1, 3)
    truth = torch.zeros(1, 1, 3, dtype=torch.long)
    torch.manual_seed(0)
    mean = torch.stack([uncertain_labels({"half": logits}, truth) for _ in range(4000)]).mean()
    u = -(p[2] * p[2].log()).sum() / math.log(3)
    even, between = math.log(3), -math.log(0.4)
    # The even one is always kept, the one between with probability u, and the mean is over those kept.
    assert float(mean) == pytest.approx(float((1 - u) * even + u * (even + between) / 2), abs=0.01)


def test_invalid_pixels_change_nothing() -> None:
    model = small().eval()
    valid = torch.ones(1, 21, 14, dtype=torch.bool)
    valid[:, 5:9, 3:] = False
    x = scene()
    other = x.masked_fill(~valid[:, None], float("nan"))
    torch.testing.assert_close(
        model(x, valid=valid)[:, :, valid[0]], model(other, valid=valid)[:, :, valid[0]]
    )


def test_windows_are_routed_by_themselves() -> None:
    model = small(windows=4).eval()
    trace = RoutingTrace()
    out = model(scene(), trace)
    assert out.shape == (1, 3, 21, 14)
    assert [plan.grid for plan in trace] == [(1, 3, 2), (1, 2, 1), (1, 1, 1)]


def test_a_scene_does_not_depend_on_its_batch() -> None:
    model = small().eval()
    both = torch.cat([scene(), scene().flip(3)])
    torch.testing.assert_close(model(both)[1:], model(both[1:]))


def test_bad_options_are_refused() -> None:
    with pytest.raises(GeomoeError, match="four directions"):
        build("mamba_moe", {**SMALL, "inner": (2, 2)})
    with pytest.raises(GeomoeError, match="groups"):
        build("mamba_moe", {**SMALL, "width": 6})
