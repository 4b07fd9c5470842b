"""What a toy of stacked experts would not do."""

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.models.registry import build
from geomoe.models.stacked_moe import early_answers
from geomoe.moe import RoutingTrace, count_flops


def stacked(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    small = {"classes": ("a", "b", "c"), "widths": (8, 12, 16), "experts": (2, 3, 4)}
    return build("stacked_moe", {**small, **options}).eval()


IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_with_later_heads_at_zero_the_last_answer_is_the_first() -> None:
    model = stacked()
    for stage in list(model.blocks)[1:]:  # type: ignore[arg-type]
        torch.nn.init.zeros_(stage.head.weight)
        torch.nn.init.zeros_(stage.head.bias)
    third, second, first = model.answers(IMAGES).values()  # type: ignore[operator]
    assert torch.equal(third, first)
    assert torch.equal(second, first)


def test_a_stage_adds_what_it_says_itself() -> None:
    model = stacked()
    _, second, first = model.answers(IMAGES).values()  # type: ignore[operator]
    with torch.no_grad():
        model.blocks[2].head.weight.normal_()  # type: ignore[index, union-attr]
        model.blocks[0].head.weight.normal_()  # type: ignore[index, union-attr]
    _, other, begun = model.answers(IMAGES).values()  # type: ignore[operator]
    torch.testing.assert_close(other - begun, second - first)


def test_cost_is_that_of_one_expert_a_stage_whatever_their_number() -> None:
    def cost(**options: object) -> int:
        return count_flops(lambda: stacked(**options)(IMAGES))

    few, many = cost(experts=(1, 1, 1)), cost(experts=(2, 4, 8))
    routers = 2 * len(IMAGES) * sum(2 * c * more for c, more in ((8, 1), (8, 3), (12, 7)))
    assert many - few == routers


def test_an_early_answer_does_not_run_later_stages() -> None:
    trace = RoutingTrace()
    early = stacked(answer=1)
    assert torch.equal(early(IMAGES, trace), list(stacked().answers(IMAGES).values())[-1])  # type: ignore[operator]
    assert len(trace) == 1
    costs = [count_flops(lambda n=n: stacked(answer=n)(IMAGES)) for n in (1, 2, 3)]  # type: ignore[misc]
    assert costs[0] < costs[1] < costs[2]


def test_the_loss_of_early_answers_is_of_all_but_the_last() -> None:
    sure, wrong = torch.tensor([[20.0, 0, 0]]), torch.tensor([[0.0, 20, 0]])
    truth = torch.tensor([0])
    assert early_answers({"third": wrong, "second": sure, "first": sure}, truth) < 1e-6
    assert early_answers({"third": sure, "second": wrong, "first": wrong}, truth) == pytest.approx(40)


def test_an_image_does_not_depend_on_its_batch() -> None:
    torch.testing.assert_close(stacked()(IMAGES)[2:3], stacked()(IMAGES[2:3]))


def test_bad_options_are_refused() -> None:
    for options, said in (({"experts": (2, 4)}, "as many as widths"), ({"answer": 4}, "a stage from 1 to 3")):
        with pytest.raises(GeomoeError, match=said):
            stacked(**options)
