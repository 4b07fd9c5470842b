"""What a toy of a mixture under a budget would not do."""

import math

import pytest
import torch

import geomoe
from geomoe.models.activations import live_bytes
from geomoe.models.budget_moe import BudgetMoE, BudgetMoEConfig, Worthwhile
from geomoe.models.sparse_ffn import DenseFFN
from geomoe.models.weights import Card, load, save
from geomoe.moe import MoE, RoutingTrace, count_flops

SMALL = {"classes": ("field", "water"), "widths": (4, 8, 16), "blocks": (1, 1, 1), "decoder": 8}
IMAGE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(**options: object) -> BudgetMoE:
    torch.manual_seed(0)
    return BudgetMoE(BudgetMoEConfig(**{**SMALL, **options})).eval()  # type: ignore[arg-type]


def cost(model: BudgetMoE) -> int:
    """Operations that are executed, one expert after the other; of so few rows several pad each other."""
    for part in model.modules():
        if isinstance(part, MoE):
            part.backend = "loop"
    with torch.inference_mode():
        return count_flops(lambda: model(IMAGE))


def test_eight_experts_cost_what_one_does_but_for_the_router() -> None:
    trace = RoutingTrace()
    with torch.inference_mode():
        made()(IMAGE, trace)
    routers = sum(2 * width * 8 * plan.num_rows for width, plan in zip((8, 16), trace, strict=True))
    routers_of_one = routers // 8
    assert cost(made()) - routers == pytest.approx(cost(made(experts=1)) - routers_of_one, rel=0.01)
    assert cost(made()) < 0.6 * cost(made(twin="parameters"))


def test_one_expert_is_the_dense_network() -> None:
    model = made(experts=1)
    with torch.inference_mode():
        expected = model(IMAGE)
        for grid in list(model.encoder)[-2:]:
            for block in grid.blocks:
                bank = block.ffn.moe.bank
                dense = DenseFFN(bank.up.shape[1], bank.up.shape[2])
                dense.layers[0].weight.copy_(bank.up[0].T)
                dense.layers[0].bias.copy_(bank.up_bias[0])
                dense.layers[2].weight.copy_(bank.down[0].T)
                dense.layers[2].bias.copy_(bank.down_bias[0])
                block.ffn = dense
        torch.testing.assert_close(model(IMAGE), expected, atol=1e-6, rtol=0)


def test_no_expert_takes_more_than_its_places_and_only_while_training() -> None:
    model, trace, free = made(), RoutingTrace(), RoutingTrace()
    model.train()(IMAGE, trace)
    for plan in trace:
        load = torch.bincount(plan.experts[plan.kept], minlength=8)
        assert load.max() <= math.ceil(1.25 * plan.num_rows / 8)
        assert plan.dropped.any(), "an untrained router is uneven"
        assert not plan.gates[plan.dropped[:, 0]].any(), "what finds no place keeps the residual"
    model.eval()(IMAGE, free)
    assert all(plan.kept.all() for plan in free)


def test_a_tile_is_what_the_whole_image_is_there_under_a_budget_too() -> None:
    model = made()
    model.spend(0.5, [IMAGE])
    tiling = model.contract.tiling
    start, core, margin = 2 * tiling.margin, 16, tiling.margin
    image = torch.rand(1, 3, start + core + 2 * margin, start + core + 2 * margin)
    tile = slice(start - margin, start + core + margin)
    with torch.inference_mode():
        whole, part = model(image), model(image[..., tile, tile])
    inside, there = slice(margin, margin + core), slice(start, start + core)
    torch.testing.assert_close(part[..., inside, inside], whole[..., there, there], atol=1e-5, rtol=0)


@pytest.fixture
def one_core():
    """Whose batches are filled up by what it does in the time of a call; of several cores, as many times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("even", [True, False])
def test_memory_is_that_of_a_dense_network_of_the_same_cost(one_core, even: bool) -> None:
    """Whether experts are used evenly, or one has half of the cells."""
    torch.manual_seed(0)
    ours, dense = (BudgetMoE(BudgetMoEConfig(twin=twin)).eval() for twin in ("none", "active"))
    for part in ours.modules():
        if isinstance(part, MoE):
            weight = part.router.score.gate.weight  # type: ignore[union-attr]
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                weight[0] *= 1 if even else 10
    x, trace = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)), RoutingTrace()
    with torch.inference_mode():
        ours(x, trace)
    shares = [torch.bincount(plan.experts[:, 0], minlength=8).max() / plan.num_rows for plan in trace]
    assert (max(shares) < 0.48) == even, shares
    assert 0 < live_bytes(ours, x) < 1.1 * live_bytes(dense, x)


def test_a_budget_is_the_share_of_cells_that_have_an_expert() -> None:
    model = made()
    whole = cost(model)
    costs = []
    for share in (0.75, 0.5, 0.25):
        model.spend(share, IMAGE.split(1))
        trace = RoutingTrace()
        with torch.inference_mode():
            model(IMAGE, trace)
        # The gates of a later mixture are those of cells that had their experts in the earlier ones.
        assert trace[0].kept.float().mean().item() == pytest.approx(share, abs=0.01)
        assert trace[1].kept.float().mean().item() == pytest.approx(share, abs=0.15)
        least = trace[0].probabilities.amax(1)[trace[0].kept[:, 0]].min()
        assert (trace[0].probabilities.amax(1)[~trace[0].kept[:, 0]] < least).all(), "the surest have one"
        costs.append(cost(model))
    assert whole > costs[0] > costs[1] > costs[2]
    model.spend(0, [])
    with torch.inference_mode():
        nothing = model(IMAGE)
        model.spend(1, [])
        assert cost(model) == whole
        assert not torch.allclose(model(IMAGE), nothing)


def test_while_training_a_budget_takes_nothing() -> None:
    model = made(capacity=8.0)
    model.spend(0, [])
    trace = RoutingTrace()
    model.train()(IMAGE, trace)
    assert all(plan.kept is None or plan.kept.all() for plan in trace)


def test_a_budget_is_kept_with_the_weights(tmp_path) -> None:
    model = made()
    model.spend(0.5, [IMAGE])
    config = {**vars(model.config)}
    card = Card("budget_moe", config, "unit", {}, "", {}, "", {}, "", "", "", task="segmentation")
    save(tmp_path / "half.safetensors", model, card)
    with torch.inference_mode():
        assert torch.equal(load(str(tmp_path / "half.safetensors")).model(IMAGE), model(IMAGE))


def test_what_is_not_there_is_not_routed() -> None:
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    valid[:, :, 16:] = False
    trace = RoutingTrace()
    with torch.inference_mode():
        out = made()(IMAGE.masked_fill(~valid[:, None], float("nan")), trace, valid)
    assert out.isfinite().all()
    assert [int(plan.valid.sum()) for plan in trace] == [2 * 16 * 8, 2 * 8 * 4]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_budget_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        made().spend(share, [])


def test_a_dense_twin_has_no_budget() -> None:
    with pytest.raises(ValueError, match="nothing is routed"):
        made(twin="active").spend(0.5, [IMAGE])


@pytest.mark.parametrize("twin", ["active", "parameters", "gated", "frozen"])
def test_twins(twin: str) -> None:
    model = made(twin=twin)
    assert model(IMAGE).shape == (2, 2, 32, 32)
    assert any(isinstance(m, Worthwhile) for m in model.modules()) == (twin in ("gated", "frozen"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mixed": 4}, "mixed=4: there are 3"),
        ({"capacity": 0.0}, "capacity=0.0"),
        ({"blocks": (1, 1)}, r"blocks=\(1, 1\): expected one for each"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model("budget_moe", **{**SMALL, **options})


def test_what_no_budget_can_be_found_by_is_said_and_changes_nothing() -> None:
    model = made()
    model.spend(0.5, [IMAGE])
    before = [part.least.clone() for part in model.modules() if isinstance(part, Worthwhile)]
    nothing = torch.full((1, 3, 16, 16), torch.nan)
    for images in ([], [nothing]):
        with pytest.raises(ValueError, match=r"a share of 0\.25 of the cells: there is no image with pixels"):
            model.spend(0.25, images)
    with pytest.raises(ValueError, match="with one expert all gates are 1"):
        made(experts=1).spend(0.25, [IMAGE])
    after = [part.least for part in model.modules() if isinstance(part, Worthwhile)]
    assert torch.equal(torch.stack(before), torch.stack(after))


def test_pixels_without_a_measurement_take_no_part_in_a_budget_and_the_mode_stays() -> None:
    model, other = made().train(), made()
    holed = torch.cat([IMAGE, torch.full_like(IMAGE, torch.nan)], 3)
    model.spend(0.5, [holed])
    assert model.training
    trace = RoutingTrace()
    model.eval()(IMAGE, trace)
    assert trace[0].kept.float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert all(part.least.isfinite() for part in model.modules() if isinstance(part, Worthwhile))
    other.spend(1, [])
    assert not other.training
