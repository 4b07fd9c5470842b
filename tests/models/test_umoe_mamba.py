"""What a toy of U-MoE Mamba would not do."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.layers.selective_scan import SelectiveScan, selective_scan
from geomoe.models.registry import build
from geomoe.models.umoe_mamba import (
    CrossAttention,
    CrossScan,
    Fusion,
    StateSpace,
    UMoEMamba,
    UMoEMambaConfig,
    VariedSizes,
)
from geomoe.moe import Direction, RoutingTrace
from geomoe.moe.layers.scan import InDirection


def small(**options: object) -> UMoEMamba:
    torch.manual_seed(0)
    config = {"classes": ("a", "b", "c"), "widths": (8, 12, 16), "state": 4}
    return UMoEMamba(UMoEMambaConfig(**{**config, **options}))  # type: ignore[arg-type]


def image(number: int = 1, seed: int = 1) -> Tensor:
    return torch.rand(number, 3, 18, 13, generator=torch.Generator().manual_seed(seed))


def opened(model: UMoEMamba) -> UMoEMamba:
    """With gates that have learned something."""
    for up in model.decoder:
        nn.init.normal_(up.fusion.moe.router.score.gate.weight)  # type: ignore[union-attr]
    return model


def test_gates_are_even_at_first_and_add_up_to_one() -> None:
    for model, even in ((small(), True), (opened(small()), False)):
        trace = RoutingTrace()
        model(image(2), trace)
        assert [plan.grid for plan in trace] == [(2,), (2,)]
        for plan in trace:
            torch.testing.assert_close(plan.gates.sum(1), torch.ones(2))
            assert torch.allclose(plan.gates, torch.full((2, 3), 1 / 3)) == even


def test_an_image_does_not_depend_on_its_batch() -> None:
    model, x, trace = opened(small()).eval(), image(3), RoutingTrace()
    torch.testing.assert_close(model(x, trace)[1:2], model(x[1:2]))
    assert not torch.allclose(trace[0].gates[0], trace[0].gates[1], atol=1e-5), "each is weighed by itself"


def test_experts_are_unlike() -> None:
    experts = Fusion(UMoEMambaConfig(), 1).moe.bank.experts  # type: ignore[union-attr]
    assert [type(one) for one in experts] == [VariedSizes, CrossAttention, StateSpace]  # type: ignore[union-attr]


def seen(expert: nn.Module) -> Tensor:
    """How the last pixel's result depends on each pixel ``[H, W]``."""
    torch.manual_seed(0)
    x = torch.rand(1, 16, 9, 8, requires_grad=True)
    expert(x)[0, :, -1, -1].square().sum().backward()
    assert x.grad is not None
    return x.grad.abs().sum((0, 1))


def test_state_spaces_see_the_whole_image_and_convolutions_three_pixels() -> None:
    torch.manual_seed(0)
    assert seen(StateSpace(8, 4))[0, 0] > 0
    of_convolutions = seen(VariedSizes(8))
    assert (of_convolutions[-4:, -4:] > 0).all()
    of_convolutions[-4:, -4:] = 0
    assert not of_convolutions.any()


def scan(direction: Direction, forgets: bool = False) -> InDirection:
    torch.manual_seed(0)
    made = InDirection(SelectiveScan(3, 4), direction)
    with torch.no_grad():
        made.sequence.log_a.fill_(20.0 if forgets else -3.0)
        made.sequence.to_step.bias.fill_(1.0)  # so large a step that directions show
    return made


def test_shallow_features_stay_and_the_gate_sees_both_scales() -> None:
    torch.manual_seed(0)
    fusion = Fusion(UMoEMambaConfig(widths=(8, 12), state=4), 0)
    nn.init.normal_(fusion.moe.router.score.gate.weight)  # type: ignore[union-attr]
    shallow, deep, trace = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4), RoutingTrace()
    found = fusion(shallow, deep, trace)
    both = torch.cat([shallow, deep], 1)
    by_hand = shallow + sum(
        trace[0].gates[0, e] * expert(both)
        for e, expert in enumerate(fusion.moe.bank.experts)  # type: ignore[arg-type,union-attr]
    )
    torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=1e-5)
    for other in ((shallow + 1, deep), (shallow, deep + 1)):
        changed = RoutingTrace()
        fusion(*other, changed)
        assert not torch.allclose(changed[0].gates, trace[0].gates)


def test_what_was_scanned_is_gated() -> None:
    """With a gate of 0 nothing of the scan is left, with a large one all of it times that."""
    torch.manual_seed(0)
    expert, x = StateSpace(8, 4), torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        expert.enter.weight[8:] = 0
        expert.enter.bias[8:] = 0  # type: ignore[index]
        torch.testing.assert_close(expert(x), expert.leave(torch.zeros(1, 8, 4, 4)))
        expert.enter.bias[8:] = 50.0  # type: ignore[index]
        value = expert.enter(expert.first(torch.stack(x.chunk(2, 1)).sum(0)))[:, :8]
        scanned = expert.norm(expert.scan(nn.functional.silu(expert.conv(value))))
        torch.testing.assert_close(expert(x), expert.leave(50 * scanned), atol=1e-3, rtol=1e-4)


def test_four_directions_differ() -> None:
    torch.manual_seed(1)
    x = 3 * torch.rand(1, 3, 4, 5)
    found = [scan(direction)(x) for direction in get_args(Direction)]
    assert len(found) == 4
    for number, one in enumerate(found):
        assert not any(torch.allclose(one, other, atol=1e-3) for other in found[number + 1 :])


@pytest.mark.parametrize("direction", get_args(Direction))
def test_without_memory_pixels_come_back_in_place(direction: Direction) -> None:
    x, way = torch.rand(1, 3, 4, 7), scan(direction, forgets=True)
    alone = [way(x[:, :, i : i + 1, j : j + 1]) for i in range(4) for j in range(7)]
    torch.testing.assert_close(way(x).flatten(2), torch.cat(alone, 2).flatten(2))
    with torch.no_grad():
        way.sequence.from_input.weight.zero_()  # nothing enters the states; the skip of 1 stays
    torch.testing.assert_close(way(x), x)


def test_scans_of_all_directions_are_added() -> None:
    torch.manual_seed(0)
    cross, x = CrossScan(3, 4), torch.rand(2, 3, 4, 5)
    assert {way.direction for way in cross.ways} == set(get_args(Direction))
    torch.testing.assert_close(cross(x), sum(way(x) for way in cross.ways))
    assert CrossScan(33, 4).ways[0].sequence.to_step.in_features == 3, "a sixteenth of the channels"  # type: ignore[union-attr]


def test_the_scan_is_the_recurrence_one_step_after_another() -> None:
    generator = torch.Generator().manual_seed(0)
    x, step = torch.rand(2, 2, 50, 3, generator=generator, dtype=torch.float64)
    a = -torch.rand(3, 4, generator=generator, dtype=torch.float64)
    b, c = torch.randn(2, 2, 50, 4, generator=generator, dtype=torch.float64)
    h, found = torch.zeros(2, 3, 4, dtype=torch.float64), []
    for t in range(50):
        h = (step[:, t, :, None] * a).exp() * h + (step * x)[:, t, :, None] * b[:, t, None]
        found.append((h * c[:, t, None]).sum(-1))
    torch.testing.assert_close(selective_scan(x, step, a, b, c), torch.stack(found, 1), rtol=0, atol=1e-10)


def test_cross_attention_weighs_channels_by_the_deep_and_places_by_the_shallow() -> None:
    torch.manual_seed(0)
    expert = CrossAttention(4)
    x = torch.rand(1, 8, 6, 6)
    deep_moved = torch.cat([x[:, :4], x[:, 4:].flip(2, 3)], 1)  # whose means are the same
    shallow_moved = torch.cat([x[:, :4].flip(2, 3), x[:, 4:]], 1)
    with torch.no_grad():
        expert.join.weight[:, 4:] = 0  # the half of the shallow features
        torch.testing.assert_close(expert(deep_moved), expert(x))
        brighter = torch.cat([x[:, :4], x[:, 4:] + 1], 1)
        assert not torch.allclose(expert(brighter), expert(x))
        expert.join.weight[:, 4:] = 1
        expert.join.weight[:, :4] = 0  # that of the deep ones
        assert not torch.allclose(expert(shallow_moved), expert(x))


def test_states_of_fine_grids_see_means_of_squares() -> None:
    torch.manual_seed(0)
    expert, x = StateSpace(4, 4, pool=4), torch.rand(1, 8, 8, 8)
    mean = nn.functional.interpolate(nn.functional.avg_pool2d(x, 4), scale_factor=4.0)
    torch.testing.assert_close(expert(x), expert(mean))
    assert expert(torch.rand(1, 8, 7, 10)).shape == (1, 4, 7, 10)
    pools = [Fusion(UMoEMambaConfig(scan=4), level).moe.bank.experts[2].pool for level in range(3)]  # type: ignore[union-attr, index]
    assert pools == [4, 2, 1]


def test_what_is_not_valid_is_not_seen() -> None:
    model, valid = opened(small()).eval(), torch.ones(1, 18, 13, dtype=torch.bool)
    valid[:, 5:9, 3:] = False
    hidden = image().masked_fill(~valid[:, None], float("nan"))
    assert torch.equal(model(hidden, valid=valid), model(image(), valid=valid))


def test_twins() -> None:
    model, even, frozen = small(), small(twin="active"), small(twin="frozen")
    torch.testing.assert_close(even(image()), model(image()))  # of the same start, whose gates are even
    trace = RoutingTrace()
    frozen(image(2), trace)
    assert not torch.allclose(trace[0].gates, torch.full((2, 3), 1 / 3), atol=1e-3)
    assert not any(p.requires_grad for up in frozen.decoder for p in up.fusion.moe.router.parameters())  # type: ignore[union-attr]
    for twin in ("gated", "parameters"):
        with pytest.raises(GeomoeError, match=r"every expert is run.*choose active or frozen"):
            build("umoe_mamba", {"twin": twin})


def test_bad_options_are_named() -> None:
    with pytest.raises(GeomoeError, match=r"widths=.*two or more"):
        build("umoe_mamba", {"widths": (8,)})
