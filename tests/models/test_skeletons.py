"""SampleMoE, AdapterMoE and DecisionMoE: what each promises, and the networks that use them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from geomoe import GeomoeError, create_model
from geomoe.models.adapter_moe import AdapterMoE, freeze_base
from geomoe.models.decision_moe import CalibratedConfidence, DecisionMoE
from geomoe.models.sample_moe import MIXERS, SampleMoE
from geomoe.models.weights import load_as, save
from geomoe.moe import Router, RoutingTrace, TopK, noisy_top_k_router, softmax_router
from geomoe.moe.routing.score import LinearScore
from tests.models.test_weights import card_of

CLASSES = ("forest", "river", "town")
VIT = {"classes": CLASSES, "embed_dim": 12, "depth": 2, "heads": 2, "patch": 4}
CONVNEXT = {"classes": CLASSES, "depths": (1, 1), "widths": (8, 12), "patch": 2}
USERS = {
    "mixers": ("convnext_mixers_t", CONVNEXT, 2, 4),
    "adapters": ("vit_ti", {**VIT, "adapters": (2, 2, 4)}, 2, 3),
    "committee": ("vit_ti", {**VIT, "committee": 3, "vote": "learned"}, 1, 3),
    "agreement": ("convnext_t", {**CONVNEXT, "committee": 3, "vote": "agreement"}, 1, 3),
}


def made(user):
    torch.manual_seed(0)
    name, options, *_ = USERS[user]
    model = create_model(name, **options)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not parameter.any() or key.endswith(".scale"):
                parameter.normal_(std=0.3)  # gates, branches and adapters that start at nothing
    return model


@pytest.fixture(params=USERS)
def user(request):
    return request.param


def test_every_mixture_is_traced(user):
    trace = RoutingTrace()
    *_, mixtures, experts = USERS[user]
    out = made(user)(torch.rand(5, 3, 12, 12), trace=trace)
    assert out.shape == (5, 3)
    assert [plan.num_experts for plan in trace] == [experts] * mixtures
    assert {plan.num_rows for plan in trace} == {45 if user == "adapters" else 5}


def test_all_that_may_learn_receives_a_gradient(user):
    model = made(user)
    nn.functional.cross_entropy(model(torch.rand(8, 3, 16, 16)), torch.arange(8) % 3).backward()
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()} == learns
    expected = {n for n, _ in model.named_parameters() if ".moe." in n or n.startswith("head.")}
    assert learns == (expected if user == "adapters" else {n for n, _ in model.named_parameters()})


def test_an_image_does_not_depend_on_its_batch(user):
    model, x = made(user).eval(), torch.rand(3, 3, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_same_numbers(user, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x = made(user).eval(), torch.rand(1, 3, 8, 12)
    torch.onnx.export(model, (x,), dynamo=True, verbose=False).save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (done,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(done), model(x), atol=1e-4, rtol=1e-4)


def test_each_sample_goes_whole_through_the_experts_chosen_for_it():
    layer = SampleMoE(Router(LinearScore(8, 4), TopK(1)), [MIXERS[name](4) for name in MIXERS]).eval()
    x = torch.randn(6, 4, 9, 7) * torch.arange(1, 7).view(-1, 1, 1, 1)
    out = layer(x, trace=(trace := RoutingTrace()))
    (plan,) = trace
    assert len(plan.experts.unique()) > 1
    for i, (expert, weight) in enumerate(zip(plan.experts[:, 0], plan.weights[:, 0], strict=True)):
        torch.testing.assert_close(out[i : i + 1], weight * layer.moe.bank.expert(expert, x[i : i + 1]))


def test_adapters_start_as_the_layer_itself_and_fit_its_weights():
    plain = nn.Linear(6, 10)
    adapted = AdapterMoE(6, 10, (2, 2, 4), softmax_router(6, 3))
    left_out = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert not left_out.unexpected_keys
    assert all(key.startswith("moe.") for key in left_out.missing_keys)
    x = torch.randn(2, 5, 6)
    assert torch.equal(adapted(x), plain(x))
    assert [tuple(bank.a.shape) for bank in adapted.moe.bank] == [(2, 6, 2), (1, 6, 4)]


@pytest.mark.parametrize("classes", [("field", "road", "sea"), CLASSES[::-1], ("field", "road"), ()])
def test_what_knew_other_classes_is_adapted_without_its_head(tmp_path, classes):
    torch.manual_seed(0)
    base, path = create_model("vit_ti", **VIT), tmp_path / "base.safetensors"
    save(path, base, replace(card_of(base), model="vit_ti", task="classification"))
    options = {**VIT, "adapters": (2, 2)}
    adapted = load_as(str(path), "vit_ti", {**options, "classes": classes}).model
    state, old = adapted.state_dict(), base.state_dict()
    assert torch.equal(state["embed.weight"], old["embed.weight"])
    head = "head.linear.weight"
    assert (head in state) == bool(classes)
    assert not classes or not torch.equal(state[head], old[head])
    same = load_as(str(path), "vit_ti", options).model
    assert torch.equal(same.state_dict()[head], old[head])


def test_a_base_keeps_its_weights():
    model = nn.Sequential(
        nn.Linear(4, 4), AdapterMoE(4, 4, (2, 2), noisy_top_k_router(4, 2)), nn.Linear(4, 2)
    )
    freeze_base(model, model[2])
    learns = {name.partition(".moe.")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {"1", "2.weight", "2.bias"}
    assert not model[1].weight.requires_grad


@pytest.mark.parametrize("vote", ["even", "confidence", "agreement", "learned"])
def test_a_decision_is_a_mixture_of_probabilities(vote):
    members = [nn.Linear(4, 3) for _ in range(3)]
    layer, x = DecisionMoE(members, vote, channels=4), torch.randn(5, 4)
    mixed = layer(x, trace=(trace := RoutingTrace())).exp()
    torch.testing.assert_close(mixed.sum(1), torch.ones(5))
    (plan,) = trace
    said = torch.stack([member(x).softmax(1) for member in members], 1)
    torch.testing.assert_close(mixed, (plan.gates[..., None] * said).sum(1))
    if vote == "even":
        torch.testing.assert_close(plan.gates, torch.full((5, 3), 1 / 3))
    if vote == "confidence":
        assert torch.equal(plan.gates.argmax(1), said.amax(2).argmax(1))


def logits_of(confidences):
    """``[1, E, 2]`` probabilities whose larger one is as given."""
    sure = torch.tensor(confidences)
    return torch.stack([sure, 1 - sure], -1)[None]


def test_calibrated_confidence_is_what_is_above_the_usual():
    vote = CalibratedConfidence(3)
    assert vote(logits_of([0.5, 0.7, 0.9])).tolist()[0] == pytest.approx([5, 7, 9], abs=1e-4)
    vote.usual.copy_(torch.tensor([0.5, 0.5, 0.9]))
    assert vote(logits_of([0.5, 0.7, 0.9])).tolist()[0] == pytest.approx([0, 2, 0], abs=1e-4)
    # Two classes at T = 2: odds 9 to 1 become 3 to 1.
    vote.temperatures.fill_(2.0)
    vote.usual.zero_()
    assert vote(logits_of([0.5, 0.5, 0.9])).tolist()[0] == pytest.approx([5, 5, 7.5], abs=1e-4)


def test_temperatures_are_of_ones_own_domain_and_the_usual_of_others():
    """Member 0 says .9 everywhere and is right in 3 of 4 of its own: by T = 2 it says .75, the likeliest."""
    vote = CalibratedConfidence(2)
    said = torch.cat([logits_of([0.9, 0.6])] * 4 + [logits_of([0.9, 0.75])] * 4)
    truth = torch.tensor([0, 0, 0, 1, 0, 0, 0, 1])
    vote.fit(said, truth, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    assert vote.temperatures.tolist() == pytest.approx([2.0, 1.0])
    assert vote.usual.tolist() == pytest.approx([0.75, 0.6], abs=1e-5)
    loud = DecisionMoE([lambda x: said[: len(x), 0].numpy(), lambda x: said[4 : 4 + len(x), 1].numpy()], vote)
    loud(torch.zeros(1, 1), trace=(trace := RoutingTrace()))
    odds = torch.tensor([0.0, (0.75 - 0.6) / 0.1])
    torch.testing.assert_close(trace[0].gates[0], odds.softmax(0))


def test_who_is_even_between_classes_has_the_least_weight():
    even, sure = nn.Linear(4, 3), nn.Linear(4, 3)
    for parameter in even.parameters():
        nn.init.zeros_(parameter)
    layer = DecisionMoE([sure, even, sure], CalibratedConfidence(3))
    layer(torch.randn(20, 4), trace=(trace := RoutingTrace()))
    assert (trace[0].gates.argmin(1) == 1).all()


def test_of_one_member_the_mixture_is_what_it_says():
    member, x = nn.Linear(4, 3), torch.randn(5, 4)
    torch.testing.assert_close(DecisionMoE([member], CalibratedConfidence(1))(x), member(x).log_softmax(1))


def test_whole_networks_and_fitted_estimators_may_decide_together():
    bayes = pytest.importorskip("sklearn.naive_bayes")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2 * 4 * 4)), np.arange(60) % 3
    x[np.arange(60), y] += 6
    forest = bayes.GaussianNB().fit(x, y)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = DecisionMoE(
        [network, lambda rows: forest.predict_proba(rows.reshape(len(rows), -1))], frozen=True
    )
    rows = torch.tensor(x, dtype=torch.float32).view(-1, 2, 4, 4)
    assert (layer(rows).argmax(1).numpy() == y).mean() > 0.95
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("convnext_t", {"mixers": ("best",)}, "mixers=.*local, wide"),
        ("convnext_t", {"mixers": ("local", "wide"), "router": "expert_choice"}, "router='expert_choice'"),
        ("vit_ti", {"adapters": ()}, "adapters=.*ranks from 1"), ("vit_ti", {"adapters": (0,)}, "adapters="),
        ("vit_ti", {"committee": 0}, "committee=0"), ("vit_ti", {"vote": "loudest"}, "vote='loudest'"),
    ],
)  # fmt: skip
def test_bad_options_are_named(name, options, said):
    with pytest.raises(GeomoeError, match=said):
        create_model(name, **options)


def test_what_is_learned_of_rows_wants_their_width():
    with pytest.raises(ValueError, match="give the channels"):
        DecisionMoE([nn.Linear(4, 3)] * 2, "learned")
