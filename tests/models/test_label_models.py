"""What every registered model that labels whole images must do, whatever it is."""

import pytest
import torch

import geomoe
from geomoe.models.contract import Input, Output
from geomoe.models.registry import build, config_of, describe
from geomoe.models.sparse_ffn import ROUTERS, SparseConfig
from geomoe.models.vit import positions
from geomoe.moe import ExpertBank
from geomoe.moe.plan import RoutingTrace
from tests.models.sizes import CLASSES, tiny

# Of 1000 classes: of ViT as Beyer et al. count it without a class token, of ConvNeXt as published; with
# experts seven more of each feed-forward layer that has any, and their router.
PARAMETERS = {"vit_s": 21_974_632, "vit_ti": 5_679_400, "convnext_t": 28_589_128, "vmoe_s": 71_618_920}


@pytest.fixture(params=geomoe.list_models("label"))
def name(request):
    return request.param


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    with torch.device("meta"):
        model = build(name, {"classes": tuple(map(str, range(1000)))})
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_any_size_and_any_bands(name):
    model = tiny(name, bands=5).eval()
    for size in [(1, 1), (7, 3), (16, 16)]:
        with torch.inference_mode():
            out = model(torch.rand(2, 5, *size))
        assert out.shape == (2, 3)
        assert out.isfinite().all()


def test_the_contract_names_what_comes_out(name):
    contract = tiny(name, bands=4).contract
    assert contract.inputs == {"image": Input(4, sensors=contract.sensors)}
    assert contract.outputs == {"label": Output("label", 3, classes=CLASSES)}
    model = tiny(name, classes=())
    (features,) = model.contract.outputs.values()
    assert features.kind == "features"
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, features.channels)


def test_positions_tell_tokens_apart_and_are_as_published():
    found = positions(5, 7, 8)
    assert found.shape == (5, 7, 8)
    assert len({tuple(token.tolist()) for token in found.flatten(0, 1)}) == 35
    y, x = 3, 5
    columns = [torch.tensor(x / 10_000 ** (i / 2)) for i in range(2)]
    rows = [torch.tensor(y / 10_000 ** (i / 2)) for i in range(2)]
    by_hand = [f(a) for angles in (columns, rows) for f in (torch.sin, torch.cos) for a in angles]
    torch.testing.assert_close(found[y, x], torch.stack(by_hand))


@pytest.mark.parametrize(
    ("sparse", "blocks", "expected"),
    [
        ("none", 6, []), ("all", 3, [0, 1, 2]), ("every_2", 6, [1, 3, 5]), ("every_2", 5, [1, 3]),
        ("last_2", 8, [5, 7]), ("last_2", 7, [3, 5]), ("last_2", 2, [1]),
    ],
)  # fmt: skip
def test_which_blocks_have_experts(sparse, blocks, expected):
    config = SparseConfig(sparse=sparse)
    assert [i for i in range(blocks) if config.is_sparse(i, blocks)] == expected


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_of_its_kind_routes_tokens(router):
    trace = RoutingTrace()
    options = {"router_options": {"top_k": 2, "groups": 1, "top_groups": 1}} if router == "deepseek" else {}
    model = tiny("vmoe_ti", router=router, experts=4, **options)
    assert model(torch.rand(2, 3, 8, 12), trace=trace).isfinite().all()
    (plan,) = trace
    assert (plan.grid, plan.num_experts) == ((2, 2, 3), 4)


def test_vmoe_routes_as_its_paper_does():
    """Gates are the two largest probabilities; noise and places are of training alone."""
    model, x = tiny("vmoe_ti", experts=4), torch.rand(2, 3, 16, 16)
    for training in (True, False):
        model.train(training)(x, trace=(trace := RoutingTrace()))
        (plan,) = trace
        torch.testing.assert_close(plan.weights, plan.logits.softmax(1).topk(2).values)
        assert (plan.noise is not None) == training
        assert plan.kept is None or training
    assert tiny("vit_ti", sparse="every_2").config.router == "noisy_top_k"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": ("one",)}, "classes=.*two names or more"), ({"classes": ("a", "a")}, "each once"),
        ({"mean": (0.1, 0.2)}, "mean=.*bands=3"), ({"std": (0.0,)}, "std=.*more than 0"),
        ({"router": "best"}, "router='best': expected one of"), ({"experts": 0}, "experts=0"),
        ({"router_options": {"k": 1}}, "has no 'k'"), ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"scale": 4}, "no option 'scale'"), ({"sparse": "some"}, "sparse='some'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name", sorted(name for name in geomoe.list_models("label") if hasattr(config_of(name, {}), "sparse"))
)
def test_bad_options_are_named(name, options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model(name, **options)


@pytest.mark.parametrize("size", ["vmoe_s", "convnext_moe_t"])
def test_dense_twins_cost_what_the_mixture_costs(size):
    options = {"classes": CLASSES, "router_options": {}}
    with torch.device("meta"):
        moe, active, whole = (build(size, {**options, "twin": t}) for t in ("none", "active", "parameters"))
    count = [sum(p.numel() for p in model.parameters()) for model in (moe, active, whole)]
    assert count[2] == pytest.approx(count[0], rel=1e-3)
    banks = [m for m in moe.modules() if isinstance(m, ExpertBank)]
    idle = sum(bank.num_parameters * (1 - 2 / bank.num_experts) for bank in banks)
    assert count[1] == pytest.approx(count[0] - idle, rel=1e-3)
    assert not any(isinstance(m, ExpertBank) for m in whole.modules())


def test_a_twin_of_equal_cost_wants_a_fixed_number_of_experts():
    with pytest.raises(geomoe.GeomoeError, match="a fixed number of experts"):
        tiny("vmoe_ti", twin="active", router="top_p", router_options={})


def test_a_dense_network_is_not_said_to_be_a_mixture():
    for dense, mixture in (
        ("unet", "unet_spatial_moe"),
        ("convnext_t", "convnext_moe_t"),
        ("vit_s", "vmoe_s"),
    ):
        assert "mixture" not in describe(dense).lower()
        assert "mixture" in describe(mixture).lower()
