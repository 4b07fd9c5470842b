"""Siamese MoE: what an exchange of dates changes, what attention is at first, and how experts are chosen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from geomoe.data.burns import Fires, burn, ndvi
from geomoe.evaluation.benchmark.threshold import Threshold
from geomoe.models.registry import build
from geomoe.models.siamese_moe import ConvolutionMoE, SiameseMoE, SiameseMoEConfig
from geomoe.moe import MoE, importance_loss
from geomoe.moe.plan import RoutingTrace
from tests.models.sizes import TINY

DATES = {"before": 4, "after": 4}


def small(**options):
    torch.manual_seed(0)
    config = {"bands": 8, "sensors": DATES, "classes": ("unchanged", "changed"), "patch": 5, "stem": 6,
              "widths": (6, 8), "hidden": 8, **options}  # fmt: skip
    return SiameseMoE(SiameseMoEConfig(**config)).eval()


def exchanged(x):
    return x.roll(4, 1)


def test_an_exchange_of_dates_exchanges_features_and_leaves_their_difference():
    model, x = small(), torch.rand(2, 8, 7, 6)
    with torch.inference_mode():
        there, back = (model.joint(model.of_image(y, None, None)) for y in (x, exchanged(x)))
        before, after, difference = there.chunk(3, 1)
        torch.testing.assert_close(back, torch.cat([after, before, difference], 1))
        assert difference.any()
        assert not torch.allclose(model(x), model(exchanged(x))), "what came first counts"


def test_the_exchange_is_told_by_the_concatenation_alone():
    """With the weights of ``f1`` and ``f2`` alike, no score changes."""
    model, x = small(), torch.rand(2, 8, 7, 6)
    width = model.config.widths[-1]

    def even(weight):  # [out, 6 width], of the middle and the mean of f1, f2 and the difference
        for start in (0, 3 * width):
            both = weight[:, start : start + 2 * width].unflatten(1, (2, width))
            both.copy_(both.mean(1, keepdim=True).expand_as(both))

    with torch.no_grad():
        even(model.decide.router.score.weight if hasattr(model.decide.router.score, "weight") else
             model.decide.router.score.gate.weight)  # fmt: skip
        for expert in model.decide.bank.experts:
            even(expert[0].weight)
        torch.testing.assert_close(model(x), model(exchanged(x)))


def test_places_share_what_they_take_and_take_nothing_at_first():
    attention = small().attention
    x = torch.randn(2, 24, 5, 5)
    torch.testing.assert_close(attention.position.affinities(x).sum(2), torch.ones(2, 25))
    torch.testing.assert_close(attention.channel.affinities(x).sum(2), torch.ones(2, 24))
    assert torch.equal(attention(x), x)
    with torch.no_grad():
        attention.position.scale.fill_(0.5)
    assert not torch.equal(attention(x), x)


def test_a_patch_is_its_middle_and_its_mean():
    model, patches = small(), torch.rand(3, 16, 5, 5)  # at first attention adds nothing
    joint = model.joint(patches)
    expected = torch.cat([joint[..., 2, 2], joint.mean((2, 3))], 1)
    torch.testing.assert_close(model.describe(patches), expected)


def test_a_mixture_of_convolutions_is_what_its_gate_says():
    torch.manual_seed(0)
    layer, x, trace = ConvolutionMoE(3, 5, 2).eval(), torch.randn(1, 3, 9, 8), RoutingTrace()
    out = layer(x, trace=trace)
    (plan,) = trace
    assert (plan.num_experts, plan.top_k, plan.grid) == (4, 2, (1, 9, 8))
    logits = layer.gate(x).movedim(1, -1).flatten(0, 2)
    chosen = logits.softmax(1).topk(2)
    torch.testing.assert_close(
        plan.gates.gather(1, chosen.indices), chosen.values / chosen.values.sum(1, True)
    )
    by_hand = 0
    for e, (group, dilation) in enumerate(zip(layer.moe.bank.groups, (1, 1, 1, 2), strict=True)):
        assert group.dilation == dilation
        each = F.conv2d(x, group.kernels()[0], group.bias[0], padding=group.reach, dilation=dilation)
        by_hand = by_hand + each * plan.gates[:, e].view(1, 1, 9, 8)
    torch.testing.assert_close(out, layer.norm(by_hand).relu(), atol=1e-5, rtol=1e-5)


def test_plans_are_of_both_dates_and_of_the_decision():
    model, trace = small(), RoutingTrace()
    wanted = torch.zeros(1, 6, 6, dtype=torch.bool)
    wanted[:, 2, 3] = True
    model(torch.rand(1, 8, 6, 6), trace, wanted=wanted)
    assert [(plan.grid, plan.num_experts) for plan in trace] == [((1, 6, 6), 4)] * 5
    assert [int(plan.valid.sum()) for plan in trace if plan.valid is not None][-1] == 1
    torch.testing.assert_close(trace[-1].gates[2 * 6 + 3].sum(), torch.tensor(1.0))


def test_plans_of_an_image_need_no_more_than_a_piece_of_its_patches(monkeypatch):
    model, x, sizes = small(), torch.rand(1, 8, 9, 9), []
    plain, kept = model(x).detach(), model.describe
    monkeypatch.setattr("geomoe.models.patch_map._PIECE_ON_CPU", 20)
    monkeypatch.setattr(model, "describe", lambda patches: sizes.append(len(patches)) or kept(patches))
    trace = RoutingTrace()
    with torch.inference_mode():
        torch.testing.assert_close(model(x, trace), plain)
    assert max(sizes) == 20
    assert (len(trace), trace[-1].grid) == (5, (1, 9, 9))


def test_weights_are_shared_but_for_first_layers_of_unlike_dates():
    assert len(small().stems) == 1
    unlike = small(bands=4, sensors={"before": 1, "after": 3})
    assert [stem.in_channels for stem in unlike.stems] == [1, 3]
    assert unlike(torch.rand(1, 4, 5, 5)).shape == (1, 2, 5, 5)


def test_a_date_that_is_not_there_is_not_seen():
    model, x = small(), torch.rand(1, 8, 8, 8)
    present = torch.ones(1, 2, 8, 8, dtype=torch.bool)
    present[:, 1, :, 4:] = False
    spoiled = x.clone()
    spoiled[:, 4:, :, 4:] = float("nan")
    with torch.inference_mode():
        assert torch.equal(model(x, present=present), model(spoiled, present=present))


def test_it_sees_as_far_as_it_says():
    model = small()
    tiling = model.contract.tiling
    assert tiling.reach == tiling.margin == 5 // 2 + 4
    x = torch.rand(1, 8, 17, 17, requires_grad=True)
    model(x)[0, :, 8, 8].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 8 - rows.min() == rows.max() - 8 == tiling.reach


@pytest.mark.parametrize("twin", ["active", "parameters"])
def test_twins_cost_what_they_stand_for(twin):
    with torch.device("meta"):
        none, dense = (ConvolutionMoE(32, 64, 2, twin=name) for name in ("none", twin))
    whole = sum(p.numel() for p in none.parameters())
    idle = none.moe.bank.num_parameters / 2 if twin == "active" else 0
    assert sum(p.numel() for p in dense.parameters()) == pytest.approx(whole - idle, rel=0.02)
    model = small(twin=twin)
    trace = RoutingTrace()
    assert model(torch.rand(1, 8, 5, 5), trace).isfinite().all()
    assert not len(trace)
    assert model.contract == small().contract
    assert not any(isinstance(module, MoE) for module in model.modules())


def test_a_frozen_router_keeps_its_start():
    model = small(twin="frozen")
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {name for name, _ in model.named_parameters() if ".gate." in name or ".router." in name}
    assert still


def test_every_parameter_learns():
    model = small().train()
    with torch.no_grad():
        for scale in (model.attention.position.scale, model.attention.channel.scale):
            scale.fill_(0.3)
    model(torch.rand(2, 8, 9, 9), RoutingTrace()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sensors": {"a": 4, "b": 2, "c": 2}}, "expected two, before and after"),
        ({"twin": "gated"}, "twin='gated': gates add up to 1"), ({"top_k": 5}, "top_k=5"),
        ({"patch": 4}, "patch=4"), ({"bands": 7}, "bands=7"),
    ],
)  # fmt: skip
def test_bad_options_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        small(**options)


def test_it_is_registered_with_the_size_of_the_paper():
    with torch.device("meta"):
        model = build("siamese_moe", {"bands": 20, "sensors": {"before": 10, "after": 10}})
    assert (model.config.patch, model.config.widths, model.config.stem) == (11, (32, 64), 32)
    assert "siamese_moe" in TINY


def landscape(rng, shape):
    """Reflectances ``[4, H, W]`` of forest, crops, soil and water, with texture."""
    kinds = np.array(
        [(0.03, 0.05, 0.03, 0.28), (0.05, 0.09, 0.04, 0.42), (0.2, 0.15, 0.1, 0.24), (0.03, 0.05, 0.06, 0.02)]
    )
    fields = gaussian_filter(rng.normal(size=(4, *shape)), (0, 6, 6)).argmax(0)
    texture = 1 + 0.08 * gaussian_filter(rng.normal(size=shape), 1.0) / 0.28
    return (kinds[fields].transpose(2, 0, 1) * texture).astype(np.float32)


@pytest.fixture(scope="module")
def learned():
    """A network that learned from the left half of a scene with made burns, and the right half."""
    rng = np.random.default_rng(0)
    before = landscape(rng, (96, 224))
    how = Fires(fires=14, radius=(8, 24), fields=10, side=(12, 30), shadows=6, shade=(6, 14))
    after, kinds = burn(before, rng, how)
    image = torch.from_numpy(np.concatenate([before, after]))[None]
    truth = torch.from_numpy(kinds == 1).long()[None]
    left, right = slice(0, 104), slice(120, None)
    mean, std = (getattr(image[..., left], name)((0, 2, 3)) for name in ("mean", "std"))
    model = small(mean=tuple(mean.tolist()), std=tuple(std.tolist()), stem=8, widths=(8, 16)).train()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 150)
    drawn = torch.Generator().manual_seed(0)
    shares = truth[..., left].float().mean()
    chance = torch.where(truth[..., left] == 1, 1 / shares, 1 / (1 - shares)).flatten()
    for _ in range(150):
        wanted = torch.zeros_like(truth[..., left], dtype=torch.bool)
        wanted.view(-1)[chance.multinomial(128, generator=drawn)] = True
        trace = RoutingTrace()
        logits = model(image[..., left], trace, wanted=wanted).movedim(1, -1)[wanted]
        loss = F.cross_entropy(logits, truth[..., left][wanted]) + 1e-2 * sum(map(importance_loss, trace))
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    return model.eval(), image[..., right], torch.from_numpy(kinds)[:, right], (before, after, kinds)


@pytest.mark.slow
def test_nothing_burned_where_both_dates_are_one(learned):
    model, image, _, _ = learned
    with torch.inference_mode():
        same = model(torch.cat([image[:, :4], image[:, :4]], 1)).argmax(1)
    assert same.float().mean() < 0.01


@pytest.mark.slow
def test_it_is_deceived_less_than_a_threshold_of_the_vegetation_index(learned):
    """Of what was harvested or in shadow at least .2 less is said to have burned, and fires are found."""
    model, image, kinds, (before, after, every) = learned
    with torch.inference_mode():
        said = model(image)[0].argmax(0).numpy()
    fall = ndvi(before) - ndvi(after)
    best = Threshold().fit(fall[:, :104].reshape(-1, 1), (every[:, :104] == 1).ravel().astype(int))
    by_threshold = best.predict_proba(fall[:, 120:].reshape(-1, 1))[:, 1].reshape(said.shape)
    kinds = kinds.numpy()
    deceived = [found[kinds >= 2].mean() for found in (said, by_threshold)]
    assert deceived[0] < deceived[1] - 0.2
    assert said[kinds == 1].mean() > 0.8
    assert f1(said, kinds == 1) > f1(by_threshold, kinds == 1)


def f1(said, truth):
    return 2 * (said * truth).sum() / (said.sum() + truth.sum())
