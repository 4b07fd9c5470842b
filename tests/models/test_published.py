"""Our networks are the functions of the published ones, and their files are read rightly."""

import pytest
import torch

import geomoe
from geomoe.models.published import to_ours, to_published
from tests.models.golden import check, filled, golden, image, layout_of, seen, uniform
from tests.models.sizes import tiny


def test_the_rule_is_the_one_that_the_values_were_made_by():
    torch.testing.assert_close(
        uniform(4, 0), torch.tensor([-1, -0.952048, -0.842158, -0.670330]).double(), atol=5e-7, rtol=0
    )
    torch.testing.assert_close(
        uniform(2, 7), torch.tensor([-0.293706, -0.245754]).double(), atol=5e-7, rtol=0
    )
    assert torch.equal(filled("conv_first.weight", (2, 3)).flatten(), uniform(6, 1824).float() / 3**0.5)
    torch.testing.assert_close(
        image(1, 1, 4).flatten(),
        torch.tensor([0, 0.023976, 0.078921, 0.164835]),
        atol=5e-7,
        rtol=0,
    )


def test_hat_is_the_published_one():
    model = golden("hat", scale=4)
    group = model.trunk.groups[0]
    found = seen(
        model, image(3, 32, 48), block0=group.blocks[0], block1=group.blocks[1], closing=group.blocks[6]
    )
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


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("name", ["hat", "swinir", "swinir_light"])
def test_what_is_published_comes_back(name, scale):
    model, layout = tiny(name, scale=scale), layout_of(name)
    published = to_published(layout, model)
    again, state = to_ours(layout, published, {})
    assert again.config.scale == scale
    with torch.device("meta"):
        assert again.state_dict().keys() == model.state_dict().keys()
    ours = geomoe.create_model(name, **vars(again.config))
    ours.load_state_dict(state)
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(x), model.eval()(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hat", (0.511124, 0.051876, 0.513696, 0.489350, 0.558650)),
        ("swinir_light", (0.453726, 0.355312, 0.610731, 0.111860, -0.390904)),
    ],
)
def test_the_published_border_is_cut_off_the_image(name, values):
    x = image(3, 20, 28)
    found = seen(golden(name, scale=4, border="published"), x)["image"]
    check(found, *values)
    ours = seen(golden(name, scale=4), x)["image"]
    strip = 11 if name == "hat" else 4
    torch.testing.assert_close(found[..., :-strip, :-strip], ours[..., :-strip, :-strip], atol=1e-5, rtol=0)
    assert (found - ours)[..., -strip, :].abs().max() > 1e-2


@pytest.mark.parametrize(
    ("size", "values"),
    [
        ((20, 28), (0.453452, 0.355736, 0.610753, 0.115079, -0.031797)),
        ((16, 24), (0.452373, 0.353252, 0.651985, 0.723079, 0.623566)),
    ],
)
def test_the_border_of_the_test_program_of_swinir(size, values):
    check(seen(golden("swinir_light", scale=4, border="swinir"), image(3, *size))["image"], *values)
