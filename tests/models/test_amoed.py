"""What a toy of experts that teach a student would not do."""

import dataclasses

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.models.amoed import from_mixture, from_previous, of_experts
from geomoe.models.registry import build
from geomoe.models.stages import train_parts
from geomoe.models.weights import Card, load_as, save
from geomoe.moe import RoutingTrace

CLASSES = ("a", "b", "c", "d", "e")
IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DOMAIN = torch.tensor([0, 2, 1, 0, 0, 2])


def amoed(seed=0, **options):
    torch.manual_seed(seed)
    return build("amoed", {"classes": CLASSES, "new": 2, "widths": (8, 12), **options})


def write(path, model):
    card = Card("amoed", dataclasses.asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "", task="any")
    save(path, model, card)
    return str(path)


def test_of_one_expert_the_mixture_is_what_it_says():
    model = amoed(experts=1).eval()
    [expert] = model.experts
    said = model.answers(IMAGES)["mixture"]
    torch.testing.assert_close(said, expert(model.normalise(IMAGES)).log_softmax(1))


def test_an_expert_that_is_even_between_classes_has_the_least_weight():
    model, trace = amoed().eval(), RoutingTrace()
    for parameter in model.experts[1].head.parameters():
        torch.nn.init.zeros_(parameter)
    model.answers(IMAGES, trace)
    assert (trace[0].gates.argmin(1) == 1).all()


def test_the_experts_of_an_even_vote_weigh_alike_and_those_by_confidence_do_not():
    for vote, alike in (("even", True), ("confidence", False)):
        amoed(vote=vote).eval().answers(IMAGES, trace := RoutingTrace())
        assert torch.allclose(trace[0].gates, torch.full((6, 3), 1 / 3), atol=1e-4) == alike


def test_each_expert_is_taught_by_its_own_satellite_alone():
    model = amoed().eval()
    said = model.answers(IMAGES, domain=DOMAIN)["experts"]
    each = [expert(model.normalise(IMAGES)) for expert in model.experts]
    for row, domain in enumerate(DOMAIN.tolist()):
        torch.testing.assert_close(said[row], each[domain][row])
    said[DOMAIN == 2].square().sum().backward()
    taught = [any(p.grad is not None and p.grad.any() for p in e.parameters()) for e in model.experts]
    assert taught == [False, False, True]


def test_no_gradient_reaches_experts_or_the_previous_student():
    model, truth = amoed().train(), torch.tensor([0, 1, 2, 3, 4, 3])
    found = model.answers(IMAGES, domain=DOMAIN)
    (from_mixture(found, truth) + from_previous(found, truth)).backward()
    learned = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"student"}
    assert not any(p.requires_grad for p in model.previous.parameters())
    assert not model.previous.training
    before = [p.clone() for p in model.experts[0].parameters()]
    model.confidence.fit(torch.rand(4, 3, 2).softmax(2), torch.zeros(4).long(), torch.zeros(4).long())
    assert all(torch.equal(a, b) for a, b in zip(before, model.experts[0].parameters(), strict=True))


def test_distillation_is_of_new_or_old_classes_alone_times_the_squared_temperature():
    student = torch.tensor([[0.0, 0.0, 2.0, 0.0]], requires_grad=True)
    found = {
        "student": student,
        "mixture": torch.tensor([[0.5, 0.5]]).log(),
        "previous": torch.tensor([[4.0, 0.0]]),
    }
    truth = torch.tensor([2])
    # Of (2, 0) at T = 2 the student says .7311 and .2689, the mixture halves: KL = .1201, times 4.
    assert from_mixture(found, truth).item() == pytest.approx(0.4805, abs=1e-4)
    # Of (4, 0) at T = 2 the teacher says .8808 and .1192, the student halves: KL = .3278, times 4.
    assert from_previous(found, truth).item() == pytest.approx(1.3112, abs=1e-4)
    from_mixture(found, truth).backward()
    assert student.grad[0, :2].tolist() == [0, 0], "old classes are none of the experts' business"
    assert from_previous({"student": student}, truth) == 0
    equal = {"student": torch.tensor([[9.0, 0.3, 0.7]]), "mixture": torch.tensor([[0.3, 0.7]])}
    assert float(from_mixture(equal, truth)) == pytest.approx(0, abs=1e-6)


def test_experts_learn_new_classes_alone():
    found = {"student": torch.zeros(2, 5), "experts": torch.tensor([[0.0, 0.0], [30.0, 0.0]])}
    assert float(of_experts(found, torch.tensor([1, 3]))) == pytest.approx(0, abs=1e-6), "1 is an old class"
    assert float(of_experts(found, torch.tensor([3, 3]))) == pytest.approx(0.3466, abs=1e-4)
    assert of_experts(found, torch.tensor([0, 2])) == 0, "none of them is new"


def test_stages_compute_what_they_learn_by_and_no_more():
    model = amoed()
    first, second = model.stages
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    train_parts(model, first.trains, learning)
    assert set(model.answers(IMAGES, domain=DOMAIN)) == {"student", "experts"}
    train_parts(model, second.trains, learning)
    assert set(model.answers(IMAGES, domain=DOMAIN)) == {"student", "mixture", "previous"}
    assert (first.losses, second.losses) == ({"experts": 1.0}, None)


def test_the_experts_are_calibrated_before_the_student_learns():
    model = amoed().eval()
    truth = torch.tensor([3, 4, 3, 4, 3, 4])
    with torch.no_grad():
        for place in ("experts", "student"):
            model.begin(place, iter([(IMAGES, {"domain": DOMAIN}, truth)]))
            assert bool(model.confidence.usual.any()) == (place == "student")
        said = torch.stack([e(model.normalise(IMAGES)).softmax(1) for e in model.experts], 1)
        usual = [model.confidence.confidence(said)[e != DOMAIN, e].mean() for e in range(3)]
    torch.testing.assert_close(model.confidence.usual, torch.stack(usual))


def test_a_session_goes_on_from_the_one_before(tmp_path):
    before = amoed(seed=1, classes=CLASSES[:3], new=0).eval()
    after = load_as(write(tmp_path / "1.safetensors", before), "amoed", dict(amoed().config.__dict__)).model
    with torch.no_grad():
        torch.testing.assert_close(after(IMAGES)[:, :3], before(IMAGES))
        torch.testing.assert_close(after.eval().answers(IMAGES)["previous"], before(IMAGES))
    again = amoed(classes=(*CLASSES, "f", "g"))
    kept = load_as(write(tmp_path / "2.safetensors", after), "amoed", dict(again.config.__dict__)).model
    torch.testing.assert_close(kept(IMAGES)[:, :5], after(IMAGES))


def test_weights_of_another_session_are_refused(tmp_path):
    path = write(tmp_path / "1.safetensors", amoed(classes=("a", "c", "b"), new=0))
    with pytest.raises(GeomoeError, match=r"know a, c, b .* old classes are a, b, c"):
        load_as(path, "amoed", dict(amoed().config.__dict__))


def test_the_twin_is_one_teacher_as_large_as_all():
    def count(model):
        return sum(p.numel() for p in model.mixture.parameters())

    whole, twin = amoed(widths=(16, 32, 64)), amoed(widths=(16, 32, 64), twin="active")
    assert count(twin) == pytest.approx(count(whole), rel=0.03)
    assert len(twin.experts) == 1
    assert twin.answers(IMAGES, domain=DOMAIN)["experts"].shape == (6, 2)
    assert twin.contract == whole.contract


def test_the_student_alone_answers_and_routes_nothing():
    model, trace = amoed().eval(), RoutingTrace()
    for parameter in model.mixture.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    assert model(IMAGES, trace, domain=DOMAIN).isfinite().all()
    assert not len(trace)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"new": 6}, "at most the 5 classes"), ({"widths": (10,)}, "multiples of 4"),
        ({"style": 2.0}, "style=2.0"), ({"vote": "loudest"}, "vote="), ({"experts": 0}, "experts=0"),
        ({"twin": "gated"}, "twin="),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options, said):
    with pytest.raises(GeomoeError, match=said):
        amoed(**options)


def test_a_satellite_without_an_expert_is_said():
    with pytest.raises(GeomoeError, match="a sample is of satellite 3"):
        amoed(experts=2).answers(IMAGES, domain=DOMAIN)
