"""Our networks are the functions of the published ones, and their files are read rightly."""

import pytest
import torch

import geomoe
from geomoe.models import load
from geomoe.models.published import LAYOUTS, convert, recognise, to_ours, to_published
from geomoe.models.published.convolutional import EDSR, EDSR_ORIGINAL, RCAN, RCAN_ORIGINAL
from geomoe.models.published.families import best_name
from geomoe.models.published.hat import HAT
from geomoe.models.published.haunet import HAUNET
from geomoe.models.published.mfg_hmoe import MFG_HMOE
from geomoe.models.published.rrdbnet import ESRGAN, ESRGAN_FIRST, RRDBNET
from geomoe.models.published.spt import SPT
from geomoe.models.published.swin2_mose import SWIN2_MOSE
from geomoe.models.published.swinir import SWINIR
from geomoe.models.published.ttst import TTST
from geomoe.models.registry import config_of
from geomoe.moe import RoutingTrace
from geomoe.moe.units import Neighbourhoods, Pixels
from tests.models.golden import check, filled, golden, image, layout_of, seen, uniform
from tests.models.sizes import tiny

OURS_ALONE = {"hat_light", "mfg_hmoe", "mfg_hmoe_light"}


def test_the_rule_is_the_one_that_the_values_were_made_by():
    torch.testing.assert_close(
        uniform(4, 0), torch.tensor([-1, -0.952048, -0.842158, -0.670330]).double(), atol=5e-7, rtol=0
    )
    torch.testing.assert_close(
        uniform(2, 7), torch.tensor([-0.293706, -0.245754]).double(), atol=5e-7, rtol=0
    )
    assert torch.equal(filled("conv_first.weight", (2, 3)).flatten(), uniform(6, 1824) / 3**0.5)
    torch.testing.assert_close(
        image(1, 1, 4).flatten(),
        torch.tensor([0, 0.023976, 0.078921, 0.164835]).double(),
        atol=5e-7,
        rtol=0,
    )


def test_hat_is_the_published_one():
    model = golden("hat", scale=4)
    group = model.trunk.groups[0]
    branch = group.blocks[0].branch
    modules = {"block0": group.blocks[0], "block1": group.blocks[1], "closing": group.blocks[6]}
    found = seen(model, image(3, 32, 48), wide=branch.conv_out, gate=branch.attention, **modules)
    cab = found["wide"] * found["gate"]
    check(cab, -0.017514, 0.099795, 0.002400, 0.073680, -0.022462, tokens=True)
    check(found["block0"], 0.031699, 1.030835, -1.244250, 0.485602, -0.451954, tokens=True)
    check(found["block1"], 0.034000, 1.055287, -1.039073, -0.183097, -0.288475, tokens=True)
    check(found["closing"], 0.066149, 1.201070, -1.587492, 0.045259, -0.606819, tokens=True)
    check(found["image"], 0.510863, 0.051507, 0.509067, 0.497492, 0.533181)


def test_swinir_is_the_published_one():
    model = golden("swinir", scale=4)
    blocks = model.trunk.groups[0].blocks
    found = seen(model, image(3, 16, 24), block0=blocks[0], block1=blocks[1])
    check(found["block0"], 0.030299, 1.031123, -1.317846, -0.640003, 0.374833, tokens=True)
    check(found["block1"], 0.031422, 1.056785, -1.156555, -1.141786, 0.584349, tokens=True)
    check(found["image"], 0.510568, 0.051323, 0.526354, 0.481211, 0.526835)


def test_the_light_swinir_is_the_published_one():
    found = seen(golden("swinir_light", scale=4), image(3, 16, 24))
    check(found["image"], 0.452268, 0.342734, 0.651720, 0.724739, 0.383667)


def no_biases(head):
    for gate in (head.routed.router.score.to_group, *head.routed.router.score.to_expert):
        torch.nn.init.zeros_(gate.bias)


def test_mfg_hmoe_is_the_released_one():
    model = golden("mfg_hmoe_released", scale=4)
    group, head = model.trunk.groups[0], model.upsample
    modules = {
        "block0": group.blocks[0],
        "block1": group.blocks[1],
        "closing": group.blocks[6],
        "group0": group,
        "norm0": model.trunk.level_norms[0],
        "level0": model.aggregate.levels[0],
        "signal": model.aggregate,
    }
    given = []
    head.register_forward_pre_hook(lambda _, what: given.extend(what))
    found = seen(model, image(3, 32, 48), narrow=head.narrow, routed=head.routed, **modules)
    values = {
        "block0": (0.058635, 1.067670, -1.081700, 1.143384, 0.643084),
        "block1": (0.078531, 1.094409, -1.000032, 0.646746, 0.494009),
        "closing": (0.106537, 1.373877, -2.765227, 0.559904, 0.305283),
        "group0": (-0.112565, 1.393902, -1.502418, 1.451026, 0.932561),
        "norm0": (0.021082, 1.002591, -1.199010, 1.144066, 1.080836),
        "level0": (-0.109710, 0.316286, 0.063738, 0.219715, -0.149138),
        "signal": (0.259998, 0.353497, 0.052299, -0.001825, 0.266765),
    }
    for name, numbers in values.items():
        check(found[name], *numbers, tokens=True)
    z = torch.nn.functional.leaky_relu(found["narrow"])
    check(z, 0.137522, 0.206596, 0.336495, -0.001864, -0.001136)
    routed = found["routed"].view(1, 32, 48, -1)
    check(routed, 0.000215, 0.139707, -0.203202, 0.062020, -0.088583, tokens=True)
    check(found["image"], 0.080060, 0.077987, 0.118962, 0.087179, 0.059084)
    # As released files have them: the biases of routers that never learned are 0.
    no_biases(head)
    with torch.inference_mode():
        check(head(*given), 0.076479, 0.083375, 0.118962, 0.121196, 0.059084)


@pytest.mark.parametrize(
    ("biases", "values", "loads"),
    [
        (
            True,
            (-0.000644, 0.329140, -0.175514, -0.289160, -0.127716),
            (9, 17, 13, 10, 10, 9, 12, 13, 19, 6, 11, 12, 7, 19, 16, 9),
        ),
        (
            False,
            (-0.000705, 0.329157, -0.175514, -0.289160, -0.127716),
            (9, 15, 12, 9, 8, 11, 16, 13, 20, 6, 11, 12, 6, 19, 15, 10),
        ),
    ],
)
def test_its_experts_are_chosen_as_in_the_released_one(biases, values, loads):
    """The head alone, on given features and signals; the trunk before it is of no matter."""
    trunk = {"embed_dim": 12, "depths": (1,), "heads": 2, "window": 4, "compress": 2, "squeeze": 4}
    head = golden("mfg_hmoe_released", scale=2, **trunk).upsample
    if not biases:
        no_biases(head)
    z, signal = (uniform(64 * 12 * 16, k).float().view(1, 64, 12, 16) for k in (1, 2))
    trace = RoutingTrace()
    pixels, around = Pixels.of(z), Neighbourhoods.of(z, 1)
    with torch.inference_mode():
        rows = head.routed(around, pixels.to_rows(3 * signal), grid=pixels.grid, trace=trace)
    check(pixels.from_rows(rows), *values)
    chosen = trace[0].experts.flatten()
    assert tuple(chosen.bincount(minlength=16).tolist()) == loads
    if biases:
        assert chosen[:16].tolist() == [2, 15, 10, 3, 2, 5, 11, 3, 8, 14, 9, 7, 13, 5, 1, 0]


@pytest.mark.parametrize("size", ["swinir_real", pytest.param("swinir_real_l", marks=pytest.mark.slow)])
def test_the_swinir_for_real_photographs_is_the_published_one(size):
    values = {
        "swinir_real": (0.510237, 0.025634, 0.509246, 0.498519, 0.471506),
        "swinir_real_l": (0.510598, 0.025242, 0.509444, 0.503634, 0.474620),
    }
    check(seen(golden(size, scale=4), image(3, 16, 24))["image"], *values[size])


NOT_TOLD = {"cross_projection", "pooling"}
"""Options that no shape tells."""

# Every layout by a network of it, tiny; what the published programs can be asked for.
PUBLISHED = [
    (EDSR, "edsr", {}),
    (EDSR_ORIGINAL, "edsr", {}),
    (EDSR_ORIGINAL, "edsr", {"mean": (0.469, 0.449, 0.4036)}),
    (ESRGAN, "rrdbnet", {"unshuffle": False}),
    (ESRGAN_FIRST, "rrdbnet", {"unshuffle": False}),
    (HAT, "hat", {}),
    (HAUNET, "haunet", {}),
    (HAUNET, "haunet_s", {"cross_projection": "own"}),
    (MFG_HMOE, "mfg_hmoe_released", {}),
    (MFG_HMOE, "mfg_hmoe_released", {"experts_per_group": (3, 2), "kernel_sizes": (3, 1)}),
    (RCAN, "rcan", {}),
    (RCAN_ORIGINAL, "rcan", {}),
    (RCAN_ORIGINAL, "rcan", {"mean": (0.469, 0.449, 0.4036)}),
    (RRDBNET, "rrdbnet", {}),
    (SPT, "spt", {}),
    (SWIN2_MOSE, "swin2_mose", {"bands": 4, "num_experts": 5, "top_k": 3}),
    (SWINIR, "swinir", {}),
    (SWINIR, "swinir_light", {}),
    (SWINIR, "swinir_real", {}),
    (SWINIR, "swinir_real_l", {"bands": 4}),
    (TTST, "ttst", {}),
]


def told(name, options):
    """What a user would have to say, as no tensor does."""
    said = {key: options[key] for key in NOT_TOLD & options.keys()}
    return said | ({"residual_scale": 1.0} if name == "edsr" else {})


@pytest.mark.parametrize("scale", [2, 3, 4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("layout", "name", "options"), PUBLISHED)
def test_what_is_published_comes_back(layout, name, options, scale):
    """Our parameters by the inverse map, read again: configuration, tensors and function are as they were."""
    if scale == 3 and name in ("rrdbnet", "swinir_real", "swinir_real_l"):
        pytest.skip("enlarge by powers of two")
    model = tiny(name, scale=scale, **options).eval()
    published = to_published(layout, model)
    assert recognise(published) is layout
    again, state = to_ours(layout, published, told(name, options))
    ours = geomoe.create_model(name, **vars(again.config)).eval()
    ours.load_state_dict(state)
    x = torch.rand(1, model.config.bands, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), model(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "scale", "tensors", "tables"),
    [
        ("haunet", 4, 617, 0),
        ("haunet_s", 4, 274, 0),
        ("spt", 2, 660, 0),
        ("spt", 4, 662, 0),
        ("swin2_mose", 4, 1180, 24),
        ("ttst", 2, 968, 42),
        ("ttst", 4, 970, 42),
        ("mfg_hmoe_released", 4, 935, 42),
        ("hat_s", 4, None, 42),
        ("hat_l", 4, None, 84),
        ("swinir", 4, None, 36),
        ("swinir_light", 4, None, 24),
    ],
)
def test_a_published_file_has_as_many_tensors(name, scale, tensors, tables):
    with torch.device("meta"):
        published = to_published(layout_of(name), geomoe.create_model(name, scale=scale))
    assert tensors in (len(published), None)
    assert sum(key.endswith("relative_position_bias_table") for key in published) == tables


@pytest.mark.parametrize(("layout", "name", "options"), PUBLISHED)
def test_a_file_of_every_layout_is_converted(layout, name, options, tmp_path):
    model = tiny(name, **options).eval()
    torch.save(to_published(layout, model), tmp_path / "theirs.pth")
    card = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", options=told(name, options))
    assert card.recipe["layout"] == layout.name
    x = torch.rand(1, model.config.bands, 9, 7)
    with torch.inference_mode():
        ours = load(str(tmp_path / "ours.safetensors")).model(x)
        torch.testing.assert_close(ours, model(x), atol=1e-6, rtol=1e-6)


def test_every_layout_is_tried():
    assert {id(layout) for layout, _, _ in PUBLISHED} == {id(layout) for layout in LAYOUTS}


@pytest.mark.parametrize("name", [n for n in geomoe.list_models("image") if n not in OURS_ALONE])
def test_a_size_is_known_by_its_shapes(name):
    layout = layout_of(name)
    with torch.device("meta"):
        model = geomoe.create_model(name, scale=2)
        again, _ = to_ours(layout, to_published(layout, model))
    assert best_name(layout.model, again.config) == name
    assert again.config == model.config, "what is converted may be trained on under its name"


@pytest.mark.parametrize(
    ("model", "options", "name"),
    [
        ("edsr_l", {"width": 32, "blocks": 8}, "edsr"), ("edsr_l", {"width": 200, "blocks": 30}, "edsr_l"),
        ("swinir", {"embed_dim": 48, "depths": (6, 6), "head": "direct"}, "swinir_light"),
        ("swinir", {"embed_dim": 120}, "swinir"),
        ("swinir", {"depths": (6, 6), "head": "nearest"}, "swinir_real"),
    ],
)  # fmt: skip
def test_another_size_goes_by_the_name_that_is_nearest(model, options, name):
    assert best_name(model, config_of(model, {"scale": 2, **options})) == name


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("hat", (0.511124, 0.051876, 0.513696, 0.489350, 0.558650), marks=pytest.mark.slow),
        pytest.param(
            "mfg_hmoe_released",
            (0.079740, 0.078789, 0.135445, -0.040282, 0.069140),
            marks=pytest.mark.slow,
        ),
        ("swinir_light", (0.453726, 0.355312, 0.610731, 0.111860, -0.390904)),
    ],
)
def test_the_published_border_is_cut_off_the_image(name, values):
    check(seen(golden(name, scale=4, border="published"), image(3, 20, 28))["image"], *values)


@pytest.mark.parametrize(
    ("name", "strips"),
    [
        ("hat", (5, 7, 11)),
        ("swinir_light", (2, 3, 4)),
        ("swinir_real", (5, 7, 9)),
        ("mfg_hmoe_released", (5, 7, 9)),
    ],
)
def test_no_more_differs_at_the_border_than_the_strip_that_is_stated(name, strips):
    for scale, strip in zip((2, 3, 4), strips, strict=True):
        ours, theirs = (tiny(name, scale=scale, border=border).eval() for border in ("features", "published"))
        x = torch.rand(1, 3, 9, 7)
        with torch.inference_mode():
            apart = (ours(x) - theirs(x)).abs().amax((0, 1))
        assert apart[:-strip, :-strip].max() < 1e-5
        assert apart[-strip].max() > 1e-5
        assert apart[:, -strip].max() > 1e-5


@pytest.mark.parametrize(
    ("size", "values"),
    [
        ((20, 28), (0.453452, 0.355736, 0.610753, 0.115079, -0.031797)),
        ((16, 24), (0.452373, 0.353252, 0.651985, 0.723079, 0.623566)),
    ],
)
def test_the_border_of_the_test_program_of_swinir(size, values):
    check(seen(golden("swinir_light", scale=4, border="swinir"), image(3, *size))["image"], *values)
