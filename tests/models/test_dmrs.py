"""What a toy of experts that lean to frequent and to rare classes would not do."""

import pytest
import torch
import torch.nn.functional as F

from geomoe.errors import GeomoeError
from geomoe.models.dmrs import adjusted, likeness, mix_cells
from geomoe.models.registry import build
from geomoe.moe import RoutingTrace

CLASSES = ("lake", "river", "town")
SEMANTICS = {"lake": ["water"], "river": ["water", "trees"], "town": ["roofs", "trees"]}
SMALL = {"embed_dim": 16, "depth": 2, "heads": 2, "patch": 4}


def dmrs(**options):
    torch.manual_seed(0)
    return build("dmrs", {"classes": CLASSES, "base": SMALL, "semantics": SEMANTICS, "cell": 4, **options})


def images(count, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_logits_lean_by_the_shares_of_the_classes():
    shares, tail = torch.tensor([0.9, 0.1]), torch.tensor([1])
    for strength, expected in ((0.0, 0.6931), (1.5, 3.3322), (-0.5, 0.2877)):
        loss = F.cross_entropy(adjusted(torch.zeros(1, 2), shares, strength), tail)
        assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_every_adapter_learns_and_nothing_of_the_base_does():
    network = dmrs().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer, truth = torch.optim.SGD(learning, 0.1), torch.arange(6) % 3
    for _ in range(2):  # B is 0 at first, and A has no gradient before it is not
        optimizer.zero_grad()
        network.objectives["diversity"](network.answers(images(6), truth=truth), truth).backward()
        optimizer.step()
    adapters = {name: p for name, p in network.named_parameters() if ".experts." in name}
    assert len(adapters) == 2 * SMALL["depth"]
    for name, p in adapters.items():
        assert p.grad.flatten(1).any(1).all(), f"{name}: an expert without a gradient"
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head", "sharpness", *adapters}


def test_a_fresh_network_is_the_base_for_every_expert():
    network = dmrs().eval()
    base = build("base_t", SMALL).eval()
    network.base.load_state_dict(base.state_dict(), strict=False)
    found = network.features(images(3))
    for expert in range(3):
        torch.testing.assert_close(found[:, expert], base(images(3)))


def test_an_expert_s_adapter_moves_its_own_answer_alone():
    network = dmrs().eval()
    before = network.answers(images(3))["experts"]
    with torch.no_grad():
        network.base.blocks[0].attention.proj.experts.b[1].normal_()
    apart = (network.answers(images(3))["experts"] - before).abs().amax((0, 2))
    assert apart[1] > 1e-3
    assert apart[0] == apart[2] == 0


def train(network, count=(40, 12, 3), steps=40):
    """On noise of which each class is a little brighter in one band."""
    truth = torch.tensor([label for label, number in enumerate(count) for _ in range(number)])
    x = images(len(truth)) * 0.7
    x[torch.arange(len(truth)), truth] += 0.05
    network.train().begin("experts", iter([(x, {}, truth)]))
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        network.objectives["diversity"](network.answers(x, truth=truth), truth).backward()
        optimizer.step()
    with torch.no_grad():
        return network.eval().answers(x)["experts"].softmax(-1)


def test_experts_lean_to_the_classes_that_they_are_for():
    rare = train(dmrs(mixing=False, dropout=0.0))[..., 2].mean(0)
    assert rare[2] > rare[1] > rare[0]


def test_experts_that_begin_alike_and_do_not_lean_stay_alike():
    network = dmrs(mixing=False, dropout=0.0, lean=(0.0, 0.0, 0.0))
    with torch.no_grad():
        for block in network.base.blocks:
            block.attention.proj.experts.a.copy_(block.attention.proj.experts.a[:1].expand(3, -1, -1))
    found = train(network, steps=3)
    torch.testing.assert_close(found[:, 0], found[:, 1])
    torch.testing.assert_close(found[:, 0], found[:, 2])


def test_mixed_images_have_their_exact_share_of_a_partner_of_the_class_most_alike():
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 1, 2, 2])
    x = labels[:, None, None, None].float().expand(-1, 3, 18, 16)  # cells at the edge are smaller
    mixed, targets = mix_cells(x, labels, likeness(CLASSES, SEMANTICS), 4)
    partners = {0: 1, 1: 0, 2: 1}
    for image, target, label in zip(mixed, targets, labels.tolist(), strict=True):
        for other in range(3):
            assert float(target[other]) == pytest.approx(float((image == other).float().mean()), abs=1e-6)
        assert target[[label, partners[label]]].sum() == pytest.approx(1)
        assert 0 < target[label] < 1
    whole = (mixed[:, 0, :16] == labels[:, None, None]).unflatten(1, (4, 4)).unflatten(3, (4, 4))
    assert ((whole.float().mean((2, 4)) % 1) == 0).all(), "cells are exchanged whole"


def test_a_batch_of_one_class_is_left_as_it_is():
    x, labels = images(4), torch.ones(4, dtype=torch.long)
    mixed, targets = mix_cells(x, labels, likeness(CLASSES, SEMANTICS), 4)
    assert torch.equal(mixed, x)
    torch.testing.assert_close(targets, F.one_hot(labels, 3).float())


def test_a_partner_is_of_another_class_without_semantics_too():
    torch.manual_seed(0)
    labels = torch.tensor([0] * 7 + [1])
    x = torch.arange(8.0)[:, None, None, None].expand(-1, 1, 8, 8)
    for _ in range(5):
        mixed, targets = mix_cells(x, labels, likeness(CLASSES, {}), 2)
        assert set(mixed[0].unique().tolist()) <= {0, 7}
        assert (targets[:, 2] == 0).all()


def test_the_answer_is_the_mean_of_probabilities_and_its_plan_is_even():
    network, trace = dmrs().eval(), RoutingTrace()
    with torch.no_grad():
        for block in network.base.blocks:
            block.attention.proj.experts.b.normal_()
    answers = network.answers(images(3), trace)
    torch.testing.assert_close(answers["label"].softmax(1), answers["experts"].softmax(-1).mean(1))
    torch.testing.assert_close(trace[0].gates, torch.full((3, 3), 1 / 3))


def test_a_class_that_is_out_of_the_question_has_a_logit_and_a_gradient():
    network = dmrs(mixing=False)
    with torch.no_grad():
        network.sharpness.fill_(300.0)
    label = network.answers(images(3), truth=torch.arange(3))["label"]
    assert label.min() < -110, "its probability is below all numbers of float32"
    assert label.isfinite().all()
    F.cross_entropy(label, label.detach().argmin(1)).backward()
    assert network.head.grad.isfinite().all()


def test_nothing_is_mixed_in_evaluation():
    network = dmrs().eval()
    truth = torch.tensor([0, 1, 2])
    with_truth = network.answers(images(3), truth=truth)
    assert torch.equal(with_truth["label"], network(images(3)))
    assert torch.equal(with_truth["targets"], F.one_hot(truth, 3).float())


def test_a_twin_has_as_many_parameters_and_one_answer():
    mixture, twin = dmrs(), dmrs(twin="active")
    assert sum(p.numel() for p in twin.parameters()) == sum(p.numel() for p in mixture.parameters())
    assert twin.answers(images(2))["experts"].shape == (2, 1, 3)
    trace = RoutingTrace()
    twin(images(2), trace)
    assert not trace


def test_bad_options_are_refused():
    for options, said in (
        ({"semantics": {"lake": ["water"]}}, "no attributes of river"),
        ({"lean": ()}, "a number for each expert"),
        ({"base": {"no": 1}}, "has no option 'no'"),
    ):
        with pytest.raises(GeomoeError, match=said):
            dmrs(**options)
