"""What every registered model must do, whatever it is."""

import dataclasses

import pytest
import torch

import geomoe
from geomoe.models.weights import Card, load, save
from tests.models.sizes import TINY, family, tiny

# Published, or counted by hand from the paper; of our own sizes, what they had when weights were made.
PARAMETERS = {
    ("edsr", 2): 1_369_859,
    ("edsr", 4): 1_517_571,
    ("edsr_l", 2): 40_729_603,
    ("edsr_l", 4): 43_089_923,
    ("hat", 2): 20_624_795,
    ("hat", 4): 20_772_507,
    ("hat_l", 2): 40_698_863,
    ("hat_l", 4): 40_846_575,
    ("hat_light", 2): 909_414,
    ("hat_light", 4): 930_186,
    ("hat_s", 2): 9_473_471,
    ("hat_s", 4): 9_621_183,
    ("haunet", 2): 2_630_786,
    ("haunet", 3): 2_643_761,
    ("haunet", 4): 2_661_926,
    ("haunet_s", 2): 584_748,
    ("haunet_s", 3): 593_403,
    ("haunet_s", 4): 605_520,
    ("mfg_hmoe", 4): 26_397_147,
    ("mfg_hmoe", 2): 22_452_699,
    ("mfg_hmoe_light", 4): 1_151_125,
    ("mfg_hmoe_light", 2): 1_027_477,
    ("mfg_hmoe_released", 2): 23_144_725,
    ("mfg_hmoe_released", 3): 24_788_245,
    ("mfg_hmoe_released", 4): 27_089_173,
    ("rcan", 2): 15_444_643,
    ("rcan", 4): 15_592_355,
    ("rrdbnet", 2): 16_703_171,
    ("rrdbnet", 4): 16_697_987,
    ("spt", 2): 3_063_660,
    ("spt", 3): 3_248_300,
    ("spt", 4): 3_211_372,
    ("swin2_mose", 2): 4_534_056,
    ("swin2_mose", 3): 4_546_221,
    ("swin2_mose", 4): 4_563_252,
    ("swinir", 2): 11_752_487,
    ("swinir", 4): 11_900_199,
    ("swinir_light", 2): 910_152,
    ("swinir_light", 4): 929_628,
    ("swinir_real", 2): 11_678_631,
    ("swinir_real", 4): 11_715_559,
    ("swinir_real_l", 2): 27_976_131,
    ("swinir_real_l", 4): 28_013_059,
    ("ttst", 2): 18_218_843,
    ("ttst", 4): 18_366_555,
}


@pytest.fixture(params=geomoe.list_models("image"))
def name(request):
    return request.param


@pytest.mark.parametrize(
    ("name", "scale"),
    [pytest.param(*key, marks=[] if key[1] == 2 else [pytest.mark.slow]) for key in PARAMETERS],
)
def test_parameter_count(name, scale):
    with torch.device("meta"):
        model = geomoe.create_model(name, scale=scale)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, scale]


def test_every_model_has_its_parameters_counted():
    assert {(name, scale) for name in geomoe.list_models("image") for scale in (2, 4)} <= set(PARAMETERS)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_any_size_and_scale(name, scale):
    model = tiny(name, scale=scale)
    for height, width in [(1, 1), (1, 5), (7, 3), (4, 4), (13, 9)]:
        with torch.inference_mode():
            out = model(torch.rand(2, 3, height, width))
        assert out.shape == (2, 3, scale * height, scale * width)
        assert out.isfinite().all()


def has(name, option):
    return option in {field.name for field in dataclasses.fields(tiny(name).config)}


@pytest.mark.parametrize(("bands", "mean"), [(3, (0.4488, 0.4371, 0.4040)), (4, 0.0), (1, 0.0)])
def test_the_mean_is_the_published_one_or_what_is_asked_for(name, bands, mean):
    if not has(name, "mean"):
        pytest.skip("subtracts nothing")
    x = torch.rand(1, bands, 8, 8)
    zero, asked = tiny(name, bands=bands, mean=(0.0,)).eval(), tiny(name, bands=bands, mean=(0.25,)).eval()
    if name != "spt":  # adds it to a base from which none was subtracted
        with torch.inference_mode():
            torch.testing.assert_close(asked(x), zero(x - 0.25) + 0.25, atol=1e-4, rtol=1e-4)
    if name not in ("ttst", "mfg_hmoe", "mfg_hmoe_light", "mfg_hmoe_released"):  # theirs are their own
        torch.testing.assert_close(
            tiny(name, bands=bands).mean.mean.flatten(), torch.tensor(mean).flatten(), check_stride=False
        )


@pytest.mark.parametrize("mean", [(0.1, 0.2), (float("nan"),), ("a",), "a", 0.5])
def test_a_mean_that_is_none_is_refused(mean):
    with pytest.raises(geomoe.GeomoeError, match="mean="):
        geomoe.create_model("edsr", mean=mean)


@pytest.mark.parametrize("border", ["published", "swinir"])
def test_the_border_matters_where_something_is_filled_up_alone(name, border):
    if not has(name, "border"):
        pytest.skip("fills up no windows")
    ours, theirs = tiny(name).eval(), tiny(name, border=border).eval()
    with torch.inference_mode():
        for height, width in ((8, 8), (9, 7)):
            x = torch.rand(1, 3, height, width)
            apart = (ours(x) - theirs(x)).abs().amax((0, 1))
            assert apart.shape == (2 * height, 2 * width)
            assert (apart[-1].max() > 1e-4) == ((height, width) == (9, 7) or border == "swinir")


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_any_number_of_bands(name, bands):
    assert tiny(name, bands=bands)(torch.rand(1, bands, 5, 6)).shape == (1, bands, 10, 12)


def test_every_parameter_receives_a_gradient(name):
    model = deterministic(name)
    model(torch.rand(2, 3, 24, 24)).square().sum().backward()
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in learning.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


def deterministic(name):
    """Without stochastic depth, which would drop branches of so few images, and with routers that learn."""
    options = {"drop_path": 0.0, "routing": "soft"}
    return tiny(name, **{option: value for option, value in options.items() if has(name, option)})


def test_an_image_does_not_depend_on_its_batch(name):
    model, x = tiny(name).eval(), torch.rand(3, 3, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=1e-5)


def test_save_and_load_give_the_same_result(name, tmp_path):
    model, x = tiny(name).eval(), torch.rand(1, 3, 6, 6)
    card = Card(name, dataclasses.asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "")
    save(tmp_path / "w.safetensors", model, card)
    with torch.inference_mode():
        assert torch.equal(model(x), load(str(tmp_path / "w.safetensors")).model(x))


def test_bfloat16_follows_float32(name):
    model, x = tiny(name).eval(), torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x)
    assert (exact - rough.float()).abs().mean() < 0.05 * exact.std()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("autocast", [False, True])
def test_cuda_follows_the_cpu(name, autocast):
    model, x = tiny(name).eval(), torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            other = model.cuda()(x.cuda()).float().cpu()
    assert (exact - other).abs().mean() < (0.05 if autocast else 1e-3) * exact.std()


def shallow(name):
    """One group of two blocks, where a model has groups: tracing takes long."""
    model = tiny(name)
    return tiny(name, depths=(2,)) if hasattr(model.config, "depths") else model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager(name):
    torch.compiler.reset()
    model = shallow(name).eval()
    compiled = torch.compile(model, backend="eager")
    for size in ((8, 8), (9, 5)):
        x = torch.rand(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_same_numbers(name, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x = shallow(name).eval(), torch.rand(1, 3, 8, 12)
    torch.onnx.export(model, (x,), dynamo=True, verbose=False).save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (done,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(done), model(x), atol=1e-4, rtol=1e-4)


def test_the_contract_states_the_model(name):
    model = tiny(name, scale=3, bands=5)
    contract = model.contract
    assert (contract.scale, contract.bands) == (3, 5)
    tiling = contract.tiling
    assert tiling.tile % tiling.multiple == tiling.margin % tiling.multiple == 0


def test_what_lies_beyond_the_reach_is_not_seen(name):
    """The promise that tiles rest on: a change further away than ``reach`` changes nothing."""
    model = tiny(name).eval()
    tiling = model.contract.tiling
    if tiling.reach is None:
        pytest.skip("looks at the whole image")
    side = tiling.multiple * (-(-tiling.reach // tiling.multiple) + 2)
    x = torch.rand(1, 3, 8, side + 8)
    y = x.clone()
    y[..., side:] = torch.rand(1, 3, 8, 8)
    kept = model.contract.scale * (side - tiling.reach)
    with torch.inference_mode():
        before, after = model(x), model(y)
    torch.testing.assert_close(before[..., :kept], after[..., :kept], atol=1e-6, rtol=1e-6)
    assert not torch.equal(before, after)


def test_a_tile_is_what_the_whole_image_gives_there(name):
    """But for rounding where the margin covers the reach; else but for what a gate of the whole image, or
    attention to it, may make of it.
    """
    torch.manual_seed(0)
    model = tiny(name).eval()
    tiling = model.contract.tiling
    grid, margin, s = tiling.multiple, tiling.margin, model.contract.scale
    core = max(16, grid)
    start = -(-(margin + 24) // grid) * grid
    side = -(-(start + core + margin + 24) // grid) * grid
    x = torch.rand(1, 3, side, side)
    tile = slice(start - margin, start + core + margin)
    with torch.inference_mode():
        whole, part = model(x), model(x[..., tile, tile])
    inside, there = slice(s * margin, s * (margin + core)), slice(s * start, s * (start + core))
    apart = (part[..., inside, inside] - whole[..., there, there]).abs().max()
    covered = tiling.reach is not None and tiling.reach <= margin
    assert apart < (1e-6 if covered else 0.1 * whole.std())


@pytest.mark.parametrize(
    ("options", "said"),
    [({"scale": 5}, "scale=5"), ({"bands": 0}, "bands=0"), ({"embed": 1}, "no option 'embed'")],
)
def test_bad_options_are_named(name, options, said):
    with pytest.raises(geomoe.GeomoeError, match=said):
        geomoe.create_model(name, **options)


def test_every_number_is_checked(name):
    config = tiny(name).config
    for field in dataclasses.fields(config):
        if field.type == "int" and field.name not in ("scale", "bands"):
            with pytest.raises(geomoe.GeomoeError, match=f"{field.name}=0"):
                geomoe.create_model(name, **{field.name: 0})
        if field.type in ("float", "bool"):
            for wrong in ("x", None, 2 if field.type == "bool" else float("inf")):
                with pytest.raises(geomoe.GeomoeError, match=f"{field.name}="):
                    geomoe.create_model(name, **{field.name: wrong})
        if field.type == "tuple[int, ...]":
            with pytest.raises(geomoe.GeomoeError, match=f"{field.name}="):
                geomoe.create_model(name, **{field.name: ()})


def test_an_unknown_model_lists_those_there_are():
    with pytest.raises(geomoe.GeomoeError, match="mfg_hmoe_light"):
        geomoe.create_model("mfg_hmo")


def test_configuration_is_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny(name).config.scale = 3


def test_no_tiny_size_is_left_over():
    assert {family(name) for name in geomoe.list_models()} == set(TINY)
