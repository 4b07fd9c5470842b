import math

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.data.jpeg import Jpeg
from geomoe.data.noise import Noise
from geomoe.data.super_resolution.blind import AnyOf, DegradationMixture
from geomoe.data.super_resolution.degradation import DEGRADATIONS, get_degradation
from geomoe.data.super_resolution.pairs import ImagePairs, PatchStream, degrade
from geomoe.data.super_resolution.psf import Psf, sigma_of_mtf
from geomoe.data.super_resolution.sensor import SensorDegradation
from geomoe.layers.super_resolution.known import Known

SCALES = (2, 3, 4, 8)


def measured_mtf(kernel, scale, angle=0.0):
    """Contrast that a kernel leaves of a wave at the low-resolution grid's Nyquist frequency."""
    k = kernel.shape[0]
    place = np.arange(k) - (k - 1) / 2
    along = place[None] * math.cos(angle) + place[:, None] * math.sin(angle)
    return float((kernel.double().numpy() * np.cos(2 * math.pi * along / (2 * scale))).sum())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("mtf", [0.05, 0.1, 0.2, 0.3])
def test_a_kernel_has_the_mtf_that_it_was_made_for(mtf, scale):
    kernel = Psf((mtf, mtf)).kernel(scale)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    for angle in (0, math.pi / 2):
        assert measured_mtf(kernel, scale, angle) == pytest.approx(mtf, abs=2e-3)
    assert sigma_of_mtf(mtf, scale) == pytest.approx(scale * sigma_of_mtf(mtf, 1))


def test_the_standard_deviation_at_a_known_value():
    assert sigma_of_mtf(math.exp(-(math.pi**2) / 8), 1) == pytest.approx(0.5)


def test_the_axes_of_a_kernel_are_turned_by_its_angle():
    angle = 0.6
    kernel = Psf((0.05, 0.4), angle).kernel(4)
    assert measured_mtf(kernel, 4, angle) == pytest.approx(0.05, abs=2e-3)
    assert measured_mtf(kernel, 4, angle + math.pi / 2) == pytest.approx(0.4, abs=2e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_a_ramp_stays_where_it_is(scale):
    """The centre of low-resolution pixel i lies at (i + 1/2) scale - 1/2 of the fine grid."""
    size = 16 * scale
    x = torch.arange(size, dtype=torch.float32) / size
    y = torch.arange(size, dtype=torch.float32)[:, None] / size / 2
    small = Psf((0.1, 0.3), 0.4)((x + y)[None, None], scale)[0, 0]
    centre = ((torch.arange(16) + 0.5) * scale - 0.5) / size
    inside = slice(4, -4)
    expected = centre[None] + centre[:, None] / 2
    torch.testing.assert_close(small[inside, inside], expected[inside, inside], atol=1e-5, rtol=0)


def test_a_flat_image_stays_flat_to_its_border():
    flat = torch.full((2, 5, 24, 32), 0.3)
    torch.testing.assert_close(Psf((0.1, 0.2), 1.0)(flat, 4), torch.full((2, 5, 6, 8), 0.3))


def test_bands_and_images_do_not_mix():
    x = torch.rand(2, 3, 16, 16)
    together = Psf((0.2, 0.2))(x, 2)
    alone = Psf((0.2, 0.2))(x[1:, 2:], 2)
    torch.testing.assert_close(together[1:, 2:], alone)


@pytest.mark.parametrize("mtf", [(0.0, 0.2), (0.2, 0.9)])
def test_an_mtf_that_cannot_be_made_is_refused(mtf):
    with pytest.raises(GeomoeError, match="at Nyquist"):
        Psf(mtf)


def test_noise_has_the_variance_that_it_states():
    noise = Noise(read=0.02, shot=0.001)
    for value in (-0.1, 0.0, 0.25, 1.0):
        x = torch.full((1, 1, 400, 400), value)
        drawn = noise(x, torch.Generator().manual_seed(0)) - x
        assert float(drawn.mean()) == pytest.approx(0, abs=3e-4)
        assert float(drawn.var()) == pytest.approx(0.02**2 + 0.001 * max(value, 0), rel=0.02)


def test_jpeg_loses_more_at_a_lower_quality_and_wants_three_bands():
    x = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    lost = [float((Jpeg(quality)(x) - x).square().mean()) for quality in (95, 75, 30)]
    assert lost[0] < lost[1] < lost[2]
    flat = torch.full((1, 3, 16, 16), 128 / 255)
    torch.testing.assert_close(Jpeg(90)(flat), flat)
    with pytest.raises(GeomoeError, match="3 bands, not 4"):
        Jpeg(75)(torch.rand(1, 4, 8, 8))
    with pytest.raises(GeomoeError, match="quality=0"):
        Jpeg(0)


def test_each_degradation_of_a_seed_is_always_the_same():
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, degradation in DEGRADATIONS.items():
        once, again, other = (degradation.drawn(seed)(x, 4) for seed in (7, 7, 8))
        assert once.shape == (1, 3, 8, 8)
        assert torch.equal(once, again)
        assert torch.equal(once, other) == (not any(word in name for word in ("noise", "blind", "sensors")))


def test_stages_come_in_their_order():
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    psf, noise, jpeg = Psf((0.2, 0.2)), Noise(0.05), Jpeg(20)
    chain = SensorDegradation("mine", psf, (noise, jpeg), quantise=False, seed=3)
    g = torch.Generator().manual_seed(3)
    torch.testing.assert_close(chain(x, 2), jpeg(noise(psf(x, 2), g)))


def test_a_mixture_draws_from_its_ranges_and_uses_them():
    mixture = DegradationMixture("blind")
    drawn = [mixture.drawn(seed) for seed in range(400)]
    mtf = np.array([d.psf.mtf for d in drawn])
    assert 0.05 <= mtf.min() < 0.08
    assert 0.42 < mtf.max() <= 0.45
    assert 0.4 < np.mean(mtf[:, 0] == mtf[:, 1]) < 0.6
    quality = [stage.quality for d in drawn for stage in d.stages if isinstance(stage, Jpeg)]
    assert 0.4 < len(quality) / 400 < 0.6
    assert (min(quality), max(quality)) == (50, 95)
    read = [d.stages[0].read for d in drawn]
    assert min(read) < 0.002
    assert 0.018 < max(read) <= 0.02
    assert not any(d.compresses for d in map(get_degradation("blind_float").drawn, range(50)))


def test_patches_of_a_random_degradation_depend_on_their_number_alone():
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pairs = ImagePairs([image], 4, get_degradation("blind"))
    a = PatchStream(pairs, 8, 4, seed=1, start=0, length=12)
    b = PatchStream(pairs, 8, 4, seed=1, start=6, length=6)
    for i in range(6):
        assert all(torch.equal(a[6 + i][key], b[i][key]) for key in ("image", "target"))
    plain = PatchStream(ImagePairs([image], 4, get_degradation("bilinear")), 8, 4, seed=1, start=0, length=12)
    assert all(torch.equal(a[i]["target"], plain[i]["target"]) for i in range(12)), "the places must not move"


def test_patches_are_blurred_as_the_whole_image_would_be():
    image = torch.randint(0, 256, (3, 80, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    soft = get_degradation("mtf_soft")
    pairs = ImagePairs([image], 4, soft)
    for y, x in [(0, 0), (5, 2), (31, 43), (56, 72)]:
        whole, _ = degrade(image[:, y % 4 :, x % 4 :], 4, soft)
        expected = whole[:, y // 4 : y // 4 + 6, x // 4 : x // 4 + 6]
        difference = pairs.made_small(image, y, x, 6, np.random.default_rng(0))[0].int() - expected.int()
        assert difference.abs().max() <= 1  # a step where rounding tips over


def test_floats_are_neither_rounded_nor_compressed():
    image = torch.linspace(-1, 2, 32).expand(4, 32, 32)
    low, _ = degrade(image, 4, get_degradation("mtf"))
    assert low.min() < 0
    assert low.max() > 1
    assert degrade(image, 4, get_degradation("blind_float"))[0].shape == (4, 8, 8)
    for name in ("mtf_noise_jpeg", "blind"):
        with pytest.raises(GeomoeError, match="choose mtf_noise or blind_float"):
            degrade(image, 4, get_degradation(name))


def test_any_of_several_draws_each_of_them_and_always_the_same_for_a_seed():
    parts = (get_degradation("bilinear"), get_degradation("mtf_noise"))
    either = AnyOf("either", parts)
    image = torch.rand(1, 3, 16, 16)
    made = [either.drawn(seed)(image, 2) for seed in range(20)]
    as_first = [bool((low == parts[0](image, 2)).all()) for low in made]
    assert 0 < sum(as_first) < 20
    for seed, low in enumerate(made):
        part = parts[0] if as_first[seed] else parts[1]
        assert (low == part.drawn(seed)(image, 2)).all()
        assert (low == either.drawn(seed)(image, 2)).all()
    assert either.quantise
    assert not either.unrounded().quantise


def test_each_degradation_says_what_is_known_of_what_it_made():
    of = Known("landsat", 30.0)
    found = {name: get_degradation(name).drawn(3).known(of) for name in
             ("bilinear", "bicubic", "bilinear_aliased", "average", "mtf", "mtf_noise")}  # fmt: skip
    assert found == {
        "bilinear": Known("landsat", 30.0, "bilinear", None, 0.0),
        "bicubic": Known("landsat", 30.0, "bicubic", None, 0.0),
        "bilinear_aliased": of,
        "average": Known("landsat", 30.0, "sensor", 2 / math.pi, 0.0),
        "mtf": Known("landsat", 30.0, "sensor", pytest.approx(0.2), 0.0),
        "mtf_noise": Known("landsat", 30.0, "sensor", pytest.approx(0.2), pytest.approx(math.sqrt(1.5e-4))),
    }
    drawn = get_degradation("sensors_noise").drawn(7).known(of)
    assert 0.1 <= drawn.mtf <= 0.35
    assert 0 < drawn.noise <= 0.05
