"""What a toy of experts for strata of difficulty would not do."""

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.layers.evidential import dirichlet, expected, uncertainty
from geomoe.models.dmoe_vit import strata, thresholds_of
from geomoe.models.registry import build
from geomoe.models.stages import train_parts
from geomoe.moe import RoutingTrace

CLASSES = ("a", "b", "c")
SILENT = -200.0


def model(**options):
    torch.manual_seed(0)
    small = {"bands": 7, "classes": CLASSES, "step": 3, "width": 8, "depth": 1, "heads": 2, "code": (6, 3)}
    return build("dmoe_vit", {**small, **options}).eval()


def spectra(count, seed=0):
    return torch.rand(count, 7, 1, 1, generator=torch.Generator().manual_seed(seed))


def silence(expert):
    with torch.no_grad():
        expert.head.weight.zero_()
        expert.head.bias.fill_(SILENT)


def test_without_evidence_every_class_is_alike():
    network = model()
    for expert in network.moe.bank.experts:
        silence(expert)
    found = network(spectra(5)).softmax(1)
    torch.testing.assert_close(found, torch.full_like(found, 1 / 3))


def test_an_expert_that_knows_nothing_has_no_weight():
    network, trace = model(), RoutingTrace()
    silence(network.moe.bank.experts[1])
    network(spectra(5), trace)
    (plan,) = trace
    assert plan.gates.shape == (5, 3)
    assert plan.gates[:, 1].max() < 1e-12
    torch.testing.assert_close(plan.gates.sum(1), torch.ones(5))


def test_weights_are_those_of_content_times_sureness():
    network, trace, x = model(), RoutingTrace(), spectra(6)
    answers = network.answers(x, trace)
    alpha = dirichlet(answers["evidence"][:, :, 0, 0].unflatten(1, (3, 3)))
    content = trace[0].logits - (1 - uncertainty(alpha)).log()
    torch.testing.assert_close(content.exp().sum(1), torch.ones(6))
    by_hand = content.exp() * (1 - uncertainty(alpha))
    by_hand = by_hand / by_hand.sum(1, keepdim=True)
    torch.testing.assert_close(trace[0].gates, by_hand)
    mixed = (by_hand[..., None] * expected(alpha)).sum(1)
    torch.testing.assert_close(answers["classes"][:, :, 0, 0].softmax(1), mixed)
    plain = RoutingTrace()
    model(confident=False)(x, plain)
    torch.testing.assert_close(plain[0].gates, content.exp())


def test_strata_of_each_class_are_of_equal_size_and_new_samples_go_by_the_thresholds():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 31 + [1] * 5 + [2])
    errors = torch.rand(37, generator=generator) * torch.tensor([1.0, 50.0, 3.0])[labels]
    thresholds = thresholds_of(errors, labels, 4, 3)
    own = strata(errors, labels, thresholds)
    for label in (0, 1):
        sizes = own[labels == label].bincount(minlength=3)
        assert sizes.max() - sizes.min() <= 1
    fresh, of = torch.tensor([-1.0, 1e9, 1e9]), torch.tensor([0, 1, 0])
    assert strata(fresh, of, thresholds).tolist() == [0, 2, 2]
    assert strata(errors[3:4], labels[3:4], thresholds) == own[3:4], "whatever it comes with"


def test_strata_are_found_in_the_training_samples_before_the_experts_learn():
    for option in ("error", "chance"):
        network = model(strata=option)
        seen = [(spectra(9, i), {}, torch.randint(3, (9, 1, 1))) for i in range(4)]
        network.begin("autoencoder", iter(seen))
        assert network.thresholds.isinf().all()
        network.begin("experts", iter(seen))
        difficulty = torch.cat([network.answers(x)["difficulty"].flatten() for x, _, _ in seen])
        labels = torch.cat([truth.flatten() for _, _, truth in seen])
        own = strata(difficulty, labels, network.thresholds)
        for label in range(3):
            sizes = own[labels == label].bincount(minlength=3)
            assert sizes.max() - sizes.min() <= 1


def test_an_expert_learns_most_of_its_own_stratum():
    network = model()
    network.thresholds.copy_(torch.tensor([[0.0, 1e9]]).expand(3, 2))  # all are moderate
    x, truth = spectra(8), torch.randint(3, (8, 1, 1))
    network.objectives["evidence"](network.answers(x), truth).backward()
    even = [expert.head.weight.grad.norm() for expert in network.moe.bank.experts]
    network.zero_grad()
    network.thresholds.fill_(1e9)  # all are easy
    network.objectives["evidence"](network.answers(x), truth).backward()
    easy = [expert.head.weight.grad.norm() for expert in network.moe.bank.experts]
    assert [float(e / m) for e, m in zip(easy, even, strict=True)] == pytest.approx([5, 0.2, 1], rel=1e-4)


def test_each_stage_trains_its_own_part_by_its_own_loss():
    network = model().train()
    names = [name for name, _ in network.named_parameters()]
    x, truth = spectra(8), torch.randint(3, (8, 1, 1))
    moved = []
    for stage in network.stages:
        train_parts(network, stage.trains, names)
        answers = network.answers(x)
        loss = (
            torch.nn.functional.cross_entropy(answers["classes"], truth)
            if stage.losses is None
            else sum(network.objectives[name](answers, truth) for name in stage.losses)
        )
        loss.backward()
        moved.append({name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None})
        assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    assert moved == [{"encoder", "decoder"}, {"moe"}, {"moe"}]


@pytest.mark.parametrize("twin", ["none", "active"])
def test_a_batch_without_a_class_costs_nothing(twin):
    network, nothing = model(twin=twin), torch.full((4, 1, 1), -1)
    answers = network.answers(spectra(4), wanted=nothing >= 0)
    names = ["evidence"] if twin == "active" else ["evidence", "reconstruction"]
    assert [network.objectives[name](answers, nothing).item() for name in names] == [0.0] * len(names)


def test_evidence_for_wrong_classes_counts_only_later():
    network, x, truth = model(), spectra(8), torch.randint(3, (8, 1, 1))
    losses = []
    for share in (0.0, 0.25, 0.5, 0.9):
        network.progress(share)
        losses.append(network.objectives["evidence"](network.answers(x), truth).item())
    assert losses[0] < losses[1] < losses[2] == losses[3]


@pytest.mark.slow
def test_the_expert_of_the_hard_knows_the_hard_better():
    """Each class has a frequent form and a rare one that mixes with another class's frequent form."""
    generator = torch.Generator().manual_seed(0)

    def made(count):
        truth = torch.randint(3, (count,), generator=generator)
        rare = torch.rand(count, generator=generator) < 1 / 3
        centre = torch.eye(7)[truth] * 2 + torch.eye(7)[3 + truth] * 4 * rare[:, None]
        centre -= 2 * torch.eye(7)[truth] * rare[:, None]
        x = centre + (0.2 + 0.6 * rare[:, None]) * torch.randn(count, 7, generator=generator)
        return x[..., None, None], truth[:, None, None]

    network = model(width=16, mean=(0.0,), std=(1.0,)).train()
    names = [name for name, _ in network.named_parameters()]
    data = made(600)
    for stage in network.stages[:2]:
        network.begin(stage.name, iter([(data[0], {}, data[1])]))
        train_parts(network, stage.trains, names)
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        steps = 60
        for step in range(steps):
            network.progress(step / steps)
            some = torch.randint(600, (128,), generator=generator)
            answers = network.answers(data[0][some])
            optimizer.zero_grad()
            network.objectives[next(iter(stage.losses))](answers, data[1][some]).backward()
            optimizer.step()
    x, truth = made(600)
    with torch.no_grad():
        answers = network.eval().answers(x)
    own = strata(answers["difficulty"].flatten(), truth.flatten(), network.thresholds)
    right = answers["evidence"].unflatten(1, (3, 3))[..., 0, 0].argmax(2) == truth[:, 0]
    hard = right[own == 2].float().mean(0)
    assert hard[2] > hard[0]


def test_a_twin_is_one_expert_as_large_as_all():
    with torch.device("meta"):
        full = {twin: build("dmoe_vit", {"bands": 200, "twin": twin}) for twin in ("none", "active")}
    sizes = {twin: sum(p.numel() for p in one.moe.bank.parameters()) for twin, one in full.items()}
    assert sizes["active"] == pytest.approx(sizes["none"], rel=0.05)
    trace, twin = RoutingTrace(), model(twin="parameters")
    assert twin(spectra(4), trace).shape == (4, 3, 1, 1)
    assert not trace
    assert [stage.name for stage in twin.stages] == ["experts"]
    assert [stage.name for stage in model(twin="frozen").stages] == ["autoencoder", "experts"]


def test_bad_options_are_refused():
    for options, said in (({"heads": 3}, "divisor of width=8"), ({"twin": "gated"}, "have no gate")):
        with pytest.raises(GeomoeError, match=said):
            model(**options)
