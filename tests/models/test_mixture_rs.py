"""What a toy of MixtureRS would not do, and what the program that it comes from does wrong."""

import pytest
import torch
from torch import nn

from geomoe.models.mixture_rs import ClassAttention, MixtureRS, MixtureRSConfig, PixelTokens, SpectralFeatures
from geomoe.models.registry import build
from geomoe.models.sparse_ffn import DenseFFN
from geomoe.moe import FeedForwardExperts, RoutingTrace
from geomoe.moe.objectives.balance import switch_loss
from geomoe.moe.routing.router import AnyRouter
from geomoe.pipeline.layers.routing import unit_of

SENSORS = {"hyperspectral": 12, "height": 1}
SMALL = {"bands": 13, "classes": ("a", "b", "c"), "sensors": SENSORS, "patch": 5, "filters": 2, "width": 8,
         "heads": 2, "hidden": 16, "dropout": 0.0}  # fmt: skip


def small(**options: object) -> MixtureRS:
    torch.manual_seed(0)
    model = MixtureRS(MixtureRSConfig(**{**SMALL, **options}))  # type: ignore[arg-type]
    return model.eval()


def patches(number: int = 3) -> torch.Tensor:
    return torch.randn(number, 13, 5, 5, generator=torch.Generator().manual_seed(1))


def there(number: int = 3) -> torch.Tensor:
    return torch.ones(number, 2, dtype=torch.bool)


def test_the_published_size_by_hand() -> None:
    options = {
        "bands": 145,
        "classes": tuple(map(str, range(15))),
        "sensors": {"hyperspectral": 144, "lidar": 1},
    }
    with torch.device("meta"):
        model = build("mixture_rs", options)
    flat = 8 * (144 - 8)
    first = (8 * 9 * 9 + 8) + 2 * 8 + (flat // 8 * 9 * 64 + 64) + (flat * 64 + 64) + 2 * 64
    tokens = (64 * 4 + 64 * 64) + (64 * 1 + 64 * 64)
    second = 9 * 64 + 64 + 2 * 64
    attention = 3 * 8 * 64 + 8 * 64 * 64 + 64
    experts = 4 * (64 * 512 + 512 + 512 * 64 + 64) + 4 * 64
    head = 2 * 64 + 64 * 15 + 15
    expected = first + second + tokens + 5 * 64 + 2 * (attention + experts + 4 * 64) + head
    assert sum(p.numel() for p in model.parameters()) == expected


def test_filters_across_bands_are_a_convolution_in_three_dimensions() -> None:
    layer, x = SpectralFeatures(MixtureRSConfig(**{**SMALL, "spectral": 4})).eval(), patches()[:, :12]  # type: ignore[arg-type]
    filters = layer.across[0]
    cubes = nn.functional.conv3d(x[:, None], filters.weight[:, None], filters.bias, padding=(0, 1, 1))
    flat = layer.across[2](layer.across[1](cubes.flatten(2, 3)).unflatten(2, (9, 5))).flatten(1, 2)
    assert flat.shape == (3, 2 * 9, 5, 5)
    torch.testing.assert_close(layer(x), layer.leave(layer.grouped(flat) + layer.point(flat)))


def test_weights_of_a_token_sum_to_one_over_pixels_whose_order_does_not_matter() -> None:
    torch.manual_seed(0)
    layer, x = PixelTokens(6, 4), torch.randn(2, 6, 3, 5)
    weights = layer.weights(x.flatten(2).transpose(1, 2))
    assert weights.shape == (2, 4, 15)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 4))
    shuffled = x.flatten(2)[:, :, torch.randperm(15)].view_as(x)
    torch.testing.assert_close(layer(shuffled), layer(x))
    assert (layer(x)[:, 0] - layer(x)[:, 1]).abs().max() > 1e-3, "each token weighs by itself"


def test_attention_adds_the_same_to_all_tokens() -> None:
    model = small()
    told = []
    model.blocks[0].attention.register_forward_hook(lambda *call: told.append(call[2]))
    before = []
    model.blocks[0].norm1.register_forward_pre_hook(lambda *call: before.append(call[1][0]))
    after = []
    model.blocks[0].norm2.register_forward_pre_hook(lambda *call: after.append(call[1][0]))
    model.label(patches(), None, there())
    assert told[0].shape == (3, 1, 8)
    torch.testing.assert_close(after[0] - before[0], told[0].expand(-1, 5, -1))


def test_the_class_token_alone_asks() -> None:
    """By hand: heads are parts of the channels, and one map for all of them makes each as wide as all."""
    torch.manual_seed(0)
    layer, x = ClassAttention(8, 2), torch.randn(1, 5, 8)
    found = []
    for head in range(2):
        part = x[0, :, 4 * head : 4 * head + 4]
        scores = layer.query(part[:1]) @ layer.key(part).T / 8**0.5
        found.append(scores.softmax(1) @ layer.value(part))
    expected = layer.project(torch.cat(found, 1))
    torch.testing.assert_close(layer(x, torch.ones(1, 5, dtype=torch.bool))[0], expected)
    asked: list[torch.Size] = []
    layer.query.register_forward_pre_hook(lambda _, given: asked.append(given[0].shape))
    layer(x, torch.ones(1, 5, dtype=torch.bool))
    assert asked == [(1, 2, 1, 4)], "queries of other tokens are not made"


def test_one_expert_is_the_dense_network() -> None:
    sparse, dense = small(experts=1, top_k=1), small(experts=1, top_k=1, twin="parameters")
    state = {name: value for name, value in sparse.state_dict().items() if ".ffn." not in name}
    dense.load_state_dict(state, strict=False)
    for one, other in zip(sparse.blocks, dense.blocks, strict=True):
        bank = one.ffn.moe.bank
        assert isinstance(bank, FeedForwardExperts)
        layers = DenseFFN(8, 16)
        with torch.no_grad():
            layers.layers[0].weight.copy_(bank.up[0].T)
            layers.layers[0].bias.copy_(bank.up_bias[0])
            layers.layers[2].weight.copy_(bank.down[0].T)
            layers.layers[2].bias.copy_(bank.down_bias[0])
        other.ffn = layers
    with torch.inference_mode():
        torch.testing.assert_close(
            sparse.label(patches(), None, there()), dense.label(patches(), None, there())
        )


def test_plans_have_a_row_for_each_token_and_in_the_last_block_for_the_class_token() -> None:
    model, trace = small(depth=3), RoutingTrace()
    x = torch.rand(2, 13, 4, 3)
    wanted = torch.zeros(2, 4, 3, dtype=torch.bool)
    wanted[0, 1, 1] = wanted[1, 2, 0] = True
    model(x, trace, wanted=wanted)
    assert [plan.grid for plan in trace] == [(2, 4, 3, 5), (2, 4, 3, 5), (2, 4, 3)]
    assert [plan.num_rows for plan in trace] == [5 * 24, 5 * 24, 24]
    assert {plan.top_k for plan in trace} == {2}
    one = RoutingTrace()
    model(x[:1], one)
    assert unit_of(one[-1], 4, 3) == "pixel", "so that there are maps of its experts"
    for plan in trace:
        assert plan.valid is not None
        assert torch.equal(plan.valid.view(2, 4, 3, -1).all(3), wanted)
        weights = plan.of_valid().weights
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


def test_a_patch_does_not_depend_on_others() -> None:
    model, x = small(), patches(4)
    trace, alone = RoutingTrace(), RoutingTrace()
    with torch.inference_mode():
        together = model.label(x, trace, there(4))
        torch.testing.assert_close(model.label(x[2:3], alone, there(1)), together[2:3])
    for plan, one in zip(trace, alone, strict=True):
        rows = plan.num_rows // 4
        assert torch.equal(plan.experts[2 * rows : 3 * rows], one.experts)


def test_the_last_block_leaves_out_what_nobody_looks_at() -> None:
    model, x = small(), patches()
    with torch.inference_mode():
        tokens, known = model.tokens(x, there())
        for block in model.blocks:
            tokens = block(tokens, known, None)
        assert tokens.shape == (3, 5, 8)
        torch.testing.assert_close(model.head(model.norm(tokens[:, 0])), model.label(x, None, there()))


def test_the_second_sensor_is_seen_through_its_token_alone() -> None:
    model, x = small(), patches()
    other = x.clone()
    other[:, 12] = 0
    with torch.inference_mode():
        tokens, without = (model.tokens(image, there())[0] for image in (x, other))
        assert torch.equal(tokens[:, 1:], without[:, 1:])
        assert (tokens[:, 0] - without[:, 0]).abs().max() > 1e-4
        assert (model.label(x, None, there()) - model.label(other, None, there())).abs().max() > 1e-5


@pytest.mark.parametrize("lacking", [0, 1])
def test_what_a_sensor_lacks_changes_nothing_and_is_not_asked(lacking: int) -> None:
    model, x = small(), torch.rand(2, 13, 5, 5)
    present = torch.ones(2, 2, 5, 5, dtype=torch.bool)
    present[:, lacking] = False
    spoiled, noisy = x.clone(), x.clone()
    bands = (slice(0, 12), slice(12, 13))[lacking]
    spoiled[:, bands], noisy[:, bands] = torch.nan, torch.randn(2, bands.stop - bands.start, 5, 5)
    with torch.inference_mode():
        clean = model(x, present=present)
        assert clean.isfinite().all()
        assert torch.equal(model(spoiled, present=present), clean)
        assert torch.equal(model(noisy, present=present), clean)
        assert (model(x) - clean).abs().max() > 1e-5
        tokens, asked = model.tokens(patches(), present[:, :, 0, 0][:1].expand(3, 2))
    assert asked[0].tolist() == [True, *[lacking == 1] * 4]
    position = model.positions if lacking == 0 else model.positions[:1]
    rows = slice(1, 5) if lacking == 0 else slice(0, 1)
    torch.testing.assert_close(tokens[0, rows], position[rows] if lacking == 0 else position)


@pytest.mark.parametrize("twin", ["active", "parameters", "gated", "frozen"])
def test_twins_replace_the_experts_of_every_block(twin: str) -> None:
    mixture, model = small(), small(twin=twin)
    trace = RoutingTrace()
    out = model(torch.rand(2, 13, 4, 4), trace)
    out.square().mean().backward()
    assert out.shape == (2, 3, 4, 4)
    assert model.contract == mixture.contract
    routed = twin in ("gated", "frozen")
    assert bool(len(trace)) == any(isinstance(m, AnyRouter) for m in model.modules()) == routed
    assert any(isinstance(m, FeedForwardExperts) for m in model.modules()) == (twin == "frozen")


def test_twins_cost_what_they_say() -> None:
    options = {"bands": 13, "classes": ("a", "b", "c"), "sensors": SENSORS}
    with torch.device("meta"):
        count = {
            twin: sum(p.numel() for p in build("mixture_rs", {**options, "twin": twin}).parameters())
            for twin in ("none", "active", "parameters")
        }
    bank = 2 * 4 * (64 * 512 + 512 + 512 * 64 + 64)
    assert count["parameters"] == pytest.approx(count["none"], rel=0.005)
    assert count["active"] == pytest.approx(count["none"] - bank / 2, rel=0.01), "two of four experts"


def test_every_parameter_learns() -> None:
    model = small(reduced=(10, 3)).train()
    model(torch.rand(2, 13, 5, 5), RoutingTrace()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dropout_is_of_training_alone() -> None:
    model, x = small(dropout=0.3), torch.rand(1, 13, 4, 4)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sensors": {"a": 11, "b": 1, "c": 1}}, "sensors=.*expected two"),
        ({"reduced": (4,)}, "reduced=.*for each sensor"),
        ({"filters": 3}, "filters=3: expected a divisor of width=8"),
        ({"heads": 3}, "heads=3: expected a divisor"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"patch": 4}, "patch=4"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MixtureRSConfig(**{**SMALL, **options})  # type: ignore[arg-type]


def test_it_learns_what_only_both_sensors_tell() -> None:
    """Class by the sign of a product: neither sensor alone says anything of it."""
    model = small(classes=("unlike", "alike"), depth=1).train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        signs = torch.randint(0, 2, (32, 2), generator=generator) * 2.0 - 1
        x = 0.3 * torch.randn(32, 13, 5, 5, generator=generator)
        x[:, :12] += signs[:, :1, None, None]
        x[:, 12:] += signs[:, 1:, None, None]
        return x, (signs.prod(1) > 0).long()

    for _ in range(40):
        trace = RoutingTrace()
        x, truth = batch()
        loss = nn.functional.cross_entropy(model.label(x, trace, there(32)), truth)
        (loss + 0.01 * switch_loss(trace[0])).backward()
        optimiser.step()
        optimiser.zero_grad()
    x, truth = batch()
    assert (model.eval().label(x, None, there(32)).argmax(1) == truth).float().mean() > 0.95
