"""What a toy of MaMOL would not do."""

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.models import load
from geomoe.models.mamol import DualLinear, Mamol, MamolConfig, Situation
from geomoe.moe import LowRankExperts, RoutingTrace
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.routing.score import ConditionedScore
from geomoe.tasks.fit import fit

SENSORS = {"hyperspectral": 5, "radar": 2, "height": 1}
SMALL = {"bands": 8, "classes": ("a", "b", "c"), "sensors": SENSORS, "patch": 3, "cell": 1, "width": 8,
         "depth": 2, "heads": 2, "hidden": 12, "rank": 2, "sensor_rank": 2}  # fmt: skip
EVERY = torch.tensor([[i >> s & 1 for s in range(3)] for i in range(1, 8)]).bool()
"""The seven patterns of three sensors."""


def small(learned: bool = True, **options: object) -> Mamol:
    """With adapters as they are once they have learned, or as they begin."""
    torch.manual_seed(0)
    model = Mamol(MamolConfig(**{**SMALL, **options}))  # type: ignore[arg-type]
    if learned:
        for part in model.modules():
            if isinstance(part, LowRankExperts):
                torch.nn.init.normal_(part.b, std=0.3)
            if isinstance(part, ConditionedScore):
                torch.nn.init.normal_(part.condition.weight)
                torch.nn.init.normal_(part.content.gate.weight)
    return model.eval()


def patches(number: int = 7) -> torch.Tensor:
    return torch.randn(number, 8, 3, 3, generator=torch.Generator().manual_seed(1))


def base_alone(model: Mamol, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    tokens = model.tokens(x, present)
    for block in model.blocks:
        tokens = block(tokens, None, None)
    return model.head(model.norm(tokens).mean(1))


def test_adapters_begin_as_the_base_exactly_for_every_pattern() -> None:
    model = small(learned=False)
    assert torch.equal(model.label(patches(), None, EVERY), base_alone(model, patches(), EVERY))
    assert not torch.allclose(small().label(patches(), None, EVERY), base_alone(model, patches(), EVERY))


def test_what_a_missing_sensor_holds_changes_nothing() -> None:
    model = small()
    there = EVERY.repeat_interleave(torch.tensor(list(SENSORS.values())), 1)[..., None, None]
    nothing = model.label(patches().masked_fill(~there, float("nan")), None, EVERY)
    assert torch.equal(nothing, model.label(patches(), None, EVERY))
    image, present = torch.rand(1, 8, 5, 4), torch.ones(1, 3, 5, 4, dtype=torch.bool)
    present[:, 1:, :, 2:] = False
    hidden = image.clone()
    hidden[:, 5:, :, 2:] = float("nan")
    found = model(hidden, present=present)
    assert found.isfinite().all()
    assert torch.equal(found, model(image, present=present))
    assert not torch.allclose(found, model(image))


def test_no_gradient_of_a_missing_sensor_is_nan() -> None:
    model = small().train()
    model.c = MamolConfig(**{**SMALL, "missing": 0.0})
    hidden = patches().masked_fill(torch.tensor([False] * 5 + [True] * 3).view(8, 1, 1), float("nan"))
    present = torch.tensor([True, False, False]).expand(7, 3)
    model.label(hidden, None, present).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_expert_of_a_missing_sensor_says_nothing_and_learns_nothing() -> None:
    model = small()
    present = torch.tensor([[True, False, True]] * 7)
    before = model.label(patches(), None, present)
    before.square().sum().backward()
    for part in model.modules():
        if isinstance(part, DualLinear):
            for grad in (part.adapters.own.a.grad, part.adapters.own.b.grad):
                assert not grad[1].any()
                assert grad[0].any()
                assert grad[2].any()
            torch.nn.init.normal_(part.adapters.own.b.data[1])
    assert torch.equal(model.label(patches(), None, present), before)
    assert not torch.equal(model.label(patches(), None, torch.ones_like(present)), before)


def test_the_expert_of_a_sensor_is_for_its_own_tokens() -> None:
    layer, present = DualLinear(8, 4, MamolConfig(**SMALL)), torch.ones(2, 3, dtype=torch.bool)
    torch.nn.init.normal_(layer.adapters.own.b.data[1])
    x = torch.randn(2, 27, 8)
    situation = situation_of(x, present)
    added = layer(x, situation) - layer(x)
    assert not added[:, :9].any()
    assert added[:, 9:18].abs().min() > 0
    assert not added[:, 18:].any()


def situation_of(x: torch.Tensor, present: torch.Tensor) -> Situation:
    pattern = torch.nn.functional.one_hot(torch.tensor([6] * len(x)), 7).float()
    return Situation(present, pattern, x.mean(1))


def test_without_weights_of_the_tokens_the_plan_is_that_of_the_pattern() -> None:
    model = small()
    x, present = patches(21), EVERY.repeat(3, 1)
    model.label(x, free := RoutingTrace(), present)
    assert any(not same_by_pattern(plan) for plan in free)
    for part in model.modules():
        if isinstance(part, ConditionedScore):
            torch.nn.init.zeros_(part.content.gate.weight)
    model.label(x, bound := RoutingTrace(), present)
    assert len(bound) == 2 * 3
    assert all(same_by_pattern(plan) for plan in bound)
    assert len(torch.unique(bound[0].experts.sort(1).values, dim=0)) > 1, "patterns differ"


def same_by_pattern(plan: RoutingPlan) -> bool:
    alike = torch.allclose(plan.weights, plan.weights[:7].repeat(3, 1), atol=1e-6)  # but for rounding
    return alike and torch.equal(plan.experts, plan.experts[:7].repeat(3, 1))


def test_all_patterns_are_told_apart_and_none_at_all_is_refused() -> None:
    model = small()
    x = patches(1).expand(7, -1, -1, -1)
    said = model.label(x, None, EVERY)
    assert said.isfinite().all()
    assert len(torch.unique(said, dim=0)) == 7
    with pytest.raises(GeomoeError, match="a sample lacks every sensor"):
        model.label(x, None, torch.zeros(7, 3, dtype=torch.bool))


def test_a_sample_is_routed_as_a_whole_by_two_of_four() -> None:
    model, trace = small(), RoutingTrace()
    present = torch.ones(1, 3, 4, 5, dtype=torch.bool)
    present[:, :, 0, 0] = False
    model(torch.rand(1, 8, 4, 5), trace, present=present)
    assert [(plan.grid, plan.num_experts, plan.top_k) for plan in trace] == [((1, 4, 5), 4, 2)] * 6
    assert all(int(plan.valid.sum()) == 19 for plan in trace)


def test_dynamic_experts_are_mixed_by_their_shares() -> None:
    """By hand, of one place."""
    torch.manual_seed(0)
    layer, x = DualLinear(8, 4, MamolConfig(**SMALL)), torch.randn(3, 27, 8)
    adapters = layer.adapters
    torch.nn.init.normal_(adapters.dynamic.bank.b)
    torch.nn.init.normal_(adapters.dynamic.router.score.condition.weight)
    situation = situation_of(x, torch.ones(3, 3, dtype=torch.bool))
    logits = adapters.dynamic.router.score.condition.weight[:, 6]
    shares, chosen = logits.softmax(0).topk(2)
    bank = adapters.dynamic.bank
    expected = sum(
        s / shares.sum() * (x @ bank.a[e] @ bank.b[e]) for s, e in zip(shares, chosen, strict=True)
    )
    torch.testing.assert_close(layer(x, situation) - layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("twin", ["active", "parameters", "gated", "frozen"])
def test_twins_replace_the_dynamic_experts_alone(twin: str) -> None:
    model = small(twin=twin)
    assert model.label(patches(), None, EVERY).isfinite().all()
    dynamic = model.blocks[0].qkv.adapters.dynamic
    number = {"active": 2, "parameters": 4, "gated": 2, "frozen": 4}[twin]
    bank = dynamic.expert.bank if twin == "gated" else dynamic.bank
    assert bank.num_experts == number
    if twin == "frozen":
        assert not any(p.requires_grad for p in dynamic.router.parameters())
        assert dynamic.router.score.content.gate.weight.any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cell": 2}, "cell=2: expected a divisor of patch=3"), ({"missing": 1.5}, "missing=1.5"),
        ({"heads": 3}, "heads=3"), ({"sensors": {"one": 8}}, "two or more"),
        ({"sensors": {"one": 4, "two": 3}}, "7 bands in all, bands=8"),
    ],
)  # fmt: skip
def test_bad_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MamolConfig(**{**SMALL, **options})


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory):
    """Three fields whose classes either sensor tells."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(1, 4, (6, 6)), 6, 0), 6, 1)
    bands = rng.normal(size=(4, 6))
    data = (bands[labels] + 0.3 * rng.normal(size=(36, 36, 6))).astype(np.float32)
    path = tmp_path_factory.mktemp("cube") / "fields.npz"
    np.savez(path, cube=data, labels=labels.astype(np.uint8))
    return path


def train(cube, out, *more: str, steps: int) -> None:
    fit(
        [
            "--config=indian_pines_mamol", f"--data.root={cube}", "--data.sensors={visible: 4, infrared: 2}",
            "--data.patch=3", "--data.batch_size=32", "--data.split=pixels", "--data.steps_per_epoch=10",
            "--model.options={patch: 3, cell: 1, width: 8, depth: 1, heads: 2, hidden: 8}",
            f"--trainer.max_steps={steps}", f"--checkpoint.dirpath={out}", "--ema.decay=0",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


@pytest.mark.slow
def test_the_base_learns_on_whole_samples_and_is_kept_by_the_adapters(cube, tmp_path) -> None:
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    train(cube, tmp_path, *stop, steps=30)  # the base alone, for ten
    before = load(str(tmp_path / "last.safetensors")).model
    train(cube, tmp_path, f"--ckpt_path={tmp_path / 'last.ckpt'}", steps=30)
    after = load(str(tmp_path / "last.safetensors")).model
    base, beside = (set(stage.trains) for stage in before.stages)
    old, new = before.state_dict(), after.state_dict()
    assert not any(value.any() for name, value in old.items() if name.endswith(".b"))
    assert all(torch.equal(old[name], new[name]) for name in base - beside)
    assert {name for name in beside if torch.equal(old[name], new[name])} == set()
    assert {"head.weight", "placeholders.tokens"} <= beside
    assert base | beside == {name for name, _ in after.named_parameters()}
