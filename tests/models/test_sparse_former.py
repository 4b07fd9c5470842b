"""What a toy of SparseFormer would not do, and what its released program does wrong."""

import math

import pytest
import torch
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.layers.gates import CBAM, CoordinateAttention
from geomoe.layers.pixel_losses import divergence
from geomoe.models.registry import build
from geomoe.models.sparse_former import SparseFormer, SparseFormerConfig, credible, doubt, merged_labels
from geomoe.models.stages import stages_of
from geomoe.moe import RoutingTrace, TopK
from tests.models.sizes import TINY

SMALL = {**TINY["sparse_former"], "colours": (), "classes": ("a", "b", "c")}


def small(**options: object) -> SparseFormer:
    torch.manual_seed(0)
    return SparseFormer(SparseFormerConfig(**{**SMALL, **options}))  # type: ignore[arg-type]


def image(seed: int = 1, number: int = 1) -> Tensor:
    return torch.rand(number, 3, 17, 14, generator=torch.Generator().manual_seed(seed))


def points() -> Tensor:
    truth = torch.full((1, 17, 14), -1)
    truth[0, 3, 4], truth[0, 12, 9], truth[0, 15, 2] = 0, 1, 2
    return truth


def merged(*p: list[float]) -> int:
    """What experts who give these probabilities teach of a pixel."""
    said = torch.tensor(p).log()[None]
    selection = TopK(1, "hard")(credible(said), credible(said))
    gates = torch.zeros(1, len(p)).scatter_(1, selection.experts, selection.weights)
    return int(merged_labels(said, gates))


def test_the_surer_expert_teaches() -> None:
    unsure, sure = torch.tensor([0.6, 0.4]).log(), torch.tensor([0.9, 0.1]).log()
    assert float(doubt(unsure)) == pytest.approx(0.6730, abs=1e-4)
    assert float(doubt(sure)) == pytest.approx(0.3251, abs=1e-4)
    assert merged([0.6, 0.4], [0.1, 0.9]) == 1
    assert merged([0.1, 0.9], [0.6, 0.4]) == 1


def test_of_experts_that_are_as_sure_the_first_teaches_and_no_class_is_meant() -> None:
    assert merged([0.1, 0.9, 1e-9], [0.9, 1e-9, 0.1]) == 1
    assert merged([1e-9, 0.1, 0.9], [0.1, 0.9, 1e-9]) == 2


def labels(*p: list[float], there: bool = True, trace: RoutingTrace | None = None) -> Tensor:
    """Of an even image, where refinement changes nothing."""
    said = torch.tensor(p).log()[None, :, :, None, None].expand(-1, -1, -1, 4, 4)
    return small().labels(said, torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), there), trace)


def test_pixels_that_no_expert_knows_teach_nothing() -> None:
    assert (labels([0.4, 0.3, 0.3], [0.4, 0.3, 0.3]) == -1).all()
    assert (labels([0.4, 0.3, 0.3], [0.3, 0.51, 0.19]) == 1).all()
    assert (labels([0.9, 0.05, 0.05], [0.9, 0.05, 0.05], there=False) == -1).all()


def test_the_plan_says_which_expert_taught() -> None:
    trace = RoutingTrace()
    labels([0.6, 0.3, 0.1], [0.05, 0.05, 0.9], trace=trace)
    (plan,) = trace
    assert (plan.grid, plan.num_experts) == ((1, 4, 4), 2)
    assert (plan.experts == 1).all()
    assert (plan.gates.sum(1) == 1).all()
    trace = RoutingTrace()
    labels([0.4, 0.3, 0.3], [0.4, 0.3, 0.3], trace=trace)
    assert not trace[0].gates.any()


@pytest.mark.parametrize("classes", [5, 8])
def test_divergence_is_of_the_classes_of_a_pixel(classes: int) -> None:
    torch.manual_seed(0)
    a, b = 9 * torch.randn(2, 2, classes, 4, 6)
    there, order = torch.ones(2, 4, 6, dtype=torch.bool), torch.randperm(classes)
    found = divergence(a, b, there, 10.0)
    torch.testing.assert_close(divergence(a[:, order], b[:, order], there, 10.0), found)
    assert float(divergence(a, a, there, 10.0)) == pytest.approx(0, abs=1e-6)
    # The sum over classes, whatever their number; and the mean over pixels.
    target, own = (x.div(10).movedim(1, -1).reshape(-1, classes) for x in (b, a))
    by_hand = nn.functional.kl_div(own.log_softmax(1), target.softmax(1), reduction="batchmean")
    torch.testing.assert_close(found, by_hand)
    some = there.clone()
    some[:, :, 3:] = False
    torch.testing.assert_close(
        divergence(a, b, some, 10.0), divergence(a[..., :3], b[..., :3], some[..., :3], 10.0)
    )


def losses(model: SparseFormer, truth: Tensor) -> dict[str, Tensor]:
    answers = model.answers(image())
    return {name: loss(answers, truth) for name, loss in model.objectives.items()}


def test_labels_teach_the_branch_alone_and_experts_teach_the_experts() -> None:
    model = small(rounds=1).train()
    own = {
        "labels": ("embed", "blocks", "fusion", "decoder", "head", "encoder"),
        "experts": ("experts", "pyramid", "encoder"),
        "agreement": ("experts", "pyramid", "encoder"),
        "guidance": ("experts", "pyramid", "encoder"),
    }
    for name, loss in losses(model, points()).items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == set(own[name]), name


def test_every_parameter_learns_in_both_stages() -> None:
    model = small()
    for stage in stages_of(model):
        assert stage.losses is not None
        found = losses(model, points())
        found["cross_entropy"] = nn.functional.cross_entropy(model(image()), points(), ignore_index=-1)
        model.zero_grad()
        torch.stack([weight * found[name] for name, weight in stage.losses.items()]).sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
        assert sum(stage.losses.values()) == pytest.approx(1.3)


def test_experts_differ_in_their_attention_and_neither_is_half_of_the_other() -> None:
    first, second = small().experts.bank.experts  # type: ignore[union-attr]
    assert [type(layer) for layer in (first[0], first[3])] == [CoordinateAttention] * 2  # type: ignore[index]
    assert [type(layer) for layer in (second[0], second[3])] == [CBAM] * 2  # type: ignore[index]


def test_points_are_among_the_labels_that_the_branch_learns_from() -> None:
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    answers = {"classes": logits, "labels": torch.tensor([[[0, 0], [1, -1]]])}
    loss = small().objectives["labels"]
    truth = torch.tensor([[[2, -1], [-1, -1]]])
    corrected = {**answers, "labels": torch.tensor([[[2, 0], [1, -1]]])}
    assert float(loss(answers, truth)) == float(loss(corrected, torch.full_like(truth, -1)))
    assert float(loss(answers, truth)) != float(loss(answers, torch.full_like(truth, -1)))


def test_doubt_is_of_the_two_largest_probabilities() -> None:
    said = torch.tensor([0.5, 0.3, 0.2]).log()
    assert float(doubt(said)) == pytest.approx(-(0.5 * math.log(0.5) + 0.3 * math.log(0.3)), abs=1e-6)
    # Of [.5, .25, .25] and [.6, .4, 0] the entropy of all classes would say that the second is surer.
    assert merged([0.5, 0.25, 0.25], [0.4, 0.6, 1e-9]) == 1
    assert merged([0.64, 0.18, 0.18], [0.25, 0.75, 1e-9]) == 1


def test_what_experts_say_is_refined_by_the_image_before_it_teaches() -> None:
    """A speck is overruled by what is around it where the image is even, and spreads over no edge."""
    model = small(dilations=(1,), rounds=10)
    said = torch.tensor([0.9, 0.05, 0.05]).log()[:, None, None].expand(3, 9, 9).clone()
    said[:, 4, 4] = torch.tensor([0.05, 0.9, 0.05]).log()
    both, there = said.expand(1, 2, 3, 9, 9), torch.ones(1, 9, 9, dtype=torch.bool)
    even, spotted = torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9)
    spotted[..., 4, 4] = 1
    assert int(model.labels(both, even, there)[0, 4, 4]) == 0
    assert int(model.labels(both, spotted, there)[0, 4, 3]) == 0
    x = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    kept = model.labels

    def labels(said: Tensor, image: Tensor, there: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        seen.append(image)
        return kept(said, image, there, trace)

    model.labels = labels  # type: ignore[method-assign]
    model.answers(x)
    torch.testing.assert_close(seen[0], model.normalise(x))


def test_an_expert_is_taught_by_the_other_one_and_the_branch() -> None:
    torch.manual_seed(0)
    first, second, branch = 5 * torch.randn(3, 1, 3, 2, 2)
    there = torch.ones(1, 2, 2, dtype=torch.bool)
    answers = {"experts": torch.stack([first, second], 1), "classes": branch, "there": there}
    found = small().objectives["guidance"](answers, torch.full((1, 2, 2), -1))
    by_hand = [divergence(one, (other + branch) / 2, there, 10.0)
               for one, other in ((first, second), (second, first))]  # fmt: skip
    torch.testing.assert_close(found, torch.stack(by_hand).mean())


def test_experts_agree_at_a_temperature_of_ten() -> None:
    torch.manual_seed(0)
    first, second = 5 * torch.randn(2, 1, 3, 2, 2)
    there = torch.ones(1, 2, 2, dtype=torch.bool)
    found = small().objectives["agreement"](
        {"experts": torch.stack([first, second], 1), "there": there}, torch.full((1, 2, 2), -1)
    )
    both = (first + second) / 2

    def kl(one: Tensor) -> Tensor:
        own, target = ((y / 10).movedim(1, -1).flatten(0, 2) for y in (one, both))
        return nn.functional.kl_div(own.log_softmax(1), target.softmax(1), reduction="batchmean")

    torch.testing.assert_close(found, (kl(first) + kl(second)) / 2)


def test_the_labels_of_experts_are_smoothed() -> None:
    """The more the branch is sure of them, the more the smoothed loss grows again."""
    loss, taught = small().objectives["labels"], torch.zeros(1, 2, 2, dtype=torch.int64)
    truth = torch.full((1, 2, 2), -1)
    logits = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 2, 2)
    found = [float(loss({"classes": k * logits, "labels": taught}, truth)) for k in (3, 300)]
    assert found[1] > found[0]


def test_pixels_without_a_label_change_no_loss() -> None:
    logits = torch.randn(1, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    there, truth = torch.tensor([[[True] * 3, [False] * 3]]), torch.full((1, 2, 3), -1)
    truth[0, 0, 0] = 1
    taught = torch.tensor([[[0, 1, 2], [-1, -1, -1]]])
    for name, loss in small().objectives.items():
        found = []
        for other in (0.0, 7.0):  # in the row that has no label and is not there
            changed = logits.clone()
            changed[..., 1, :] += other * torch.randn(3, 1)
            experts = torch.stack([changed, changed.flip(1)], 1)
            found.append(
                loss({"classes": changed, "experts": experts, "labels": taught, "there": there}, truth)
            )
        assert torch.equal(*found), name


def test_dice_is_of_probabilities() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    answers, truth = {"labels": torch.randint(3, (1, 4, 4))}, torch.full((1, 4, 4), -1)
    loss = small().objectives["labels"]
    one, other = (loss({**answers, "classes": logits + shift}, truth) for shift in (0, 100))
    torch.testing.assert_close(one, other)


def test_no_norm_has_statistics_and_training_differs_by_dropout_alone() -> None:
    model = small()
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert torch.equal(model.train()(image()), model.eval()(image()))  # of the branch, which drops nothing
    both = torch.cat([image(), image(2)])
    torch.testing.assert_close(model(both)[1:], model(both[1:]))


def test_what_is_not_valid_is_not_seen_and_teaches_nothing() -> None:
    model = small().eval()
    valid = torch.ones(1, 17, 14, dtype=torch.bool)
    valid[:, 5:9, 3:] = False
    other = image().masked_fill(~valid[:, None], float("nan"))
    found, same = model.answers(other, valid=valid), model.answers(image(), valid=valid)
    assert all(torch.equal(found[name], same[name]) for name in found)
    assert (found["labels"][~valid] == -1).all()
    assert torch.equal(model(other, valid=valid), found["classes"])


def test_what_answers_runs_no_expert_and_routes_nothing() -> None:
    model, trace = small().eval(), RoutingTrace()
    expected = model.answers(image())["classes"]
    for part in (model.experts, model.pyramid):
        part.requires_grad_(False)
        for parameter in part.parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(model(image(), trace=trace), expected)
    assert not len(trace)


def test_the_twin_is_the_branch_alone() -> None:
    model, twin = small(), small(twin="active")
    assert stages_of(twin) == ()
    assert [stage.name for stage in stages_of(model)] == ["points", "labels"]
    assert [stage.share for stage in stages_of(model)] == [1, 3]
    mine = {
        name: p for name, p in model.state_dict().items() if name.split(".")[0] not in ("experts", "pyramid")
    }
    twin.load_state_dict(mine)
    assert torch.equal(model.eval()(image()), twin.eval()(image()))


def test_chance_chooses_either_expert() -> None:
    model, trace = small(choice="chance"), RoutingTrace()
    said = torch.tensor([[0.6, 0.3, 0.1], [0.05, 0.05, 0.9]]).log()[None, :, :, None, None]
    model.labels(
        said.expand(-1, -1, -1, 20, 20), torch.zeros(1, 3, 20, 20), torch.ones(1, 20, 20).bool(), trace
    )
    assert 0.3 < (trace[0].experts == 1).float().mean() < 0.7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"twin": "gated"}, "twin='gated': its experts teach"),
        ({"twin": "parameters"}, "choose active"),
        ({"choice": "both"}, "choice='both'"),
        ({"widths": (8,)}, "widths=.*two or more"),
        ({"window": 3}, "window=3: expected an even"),
        ({"heads": 3}, "heads=3: expected a divisor of width"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(GeomoeError, match=said):
        build("sparse_former", {**SMALL, **options})
