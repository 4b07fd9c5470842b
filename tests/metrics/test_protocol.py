import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from geomoe import GeomoeError
from geomoe.metrics.image import psnr, ssim, to_luma
from geomoe.metrics.protocol import PROTOCOLS, get_protocol


@pytest.fixture
def images():
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (3, 40, 50), generator=g).float()
    return x, (x + torch.randn(x.shape, generator=g) * 20).round().clamp(0, 255)


def test_psnr_at_known_values(images):
    x, y = images
    assert psnr(x, x) == math.inf
    assert psnr(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)) == pytest.approx(20 * math.log10(255))
    assert psnr(x, y) == pytest.approx(peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=255))


def test_ssim_equals_scikit_images_away_from_the_border(images):
    x, y = images
    assert ssim(x, x) == pytest.approx(1)
    _, full = structural_similarity(
        x.numpy(), y.numpy(), channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert ssim(x, y) == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-6)


def test_luma_is_bt601_studio_range():
    white, black = torch.full((3, 1, 1), 255.0), torch.zeros(3, 1, 1)
    assert float(to_luma(white)) == pytest.approx(235)
    assert float(to_luma(black)) == 16
    red = torch.tensor([255.0, 0, 0]).view(3, 1, 1)
    assert float(to_luma(red)) == pytest.approx(81.481)


def test_the_protocols_differ_as_they_say(images):
    x, y = (t / 255 for t in images)
    y = y.clone()
    y[:, :4] = 1 - x[:, :4]  # an error in the border alone
    scores = {name: p.score(y, x, 4)[0] for name, p in PROTOCOLS.items()}
    assert scores["mfg_hmoe"] > scores["ttst"] > scores["hsenet"]


def test_results_are_rounded_and_clipped_first():
    truth = torch.zeros(3, 30, 30)
    assert get_protocol("mfg_hmoe").score(truth - 0.3, truth, 2)[0] == 100
    assert get_protocol("mfg_hmoe").score(truth + 0.4 / 255, truth, 2)[0] == 100


def test_ttst_truncates():
    """As its test program does; a whole number stays, though 255 times a 255th may lie just below it."""
    truth = torch.arange(256).repeat(3, 4).view(3, 32, 32) / 255
    truncating, rounding = get_protocol("ttst"), get_protocol("hsenet")
    assert torch.equal(truncating.compared(truth, truth, 4)[0], (truth * 255).round())
    assert truncating.score(truth + 0.9 / 255, truth, 4)[0] == 100
    assert rounding.score(truth + 0.9 / 255, truth, 4)[0] < 50
    below = truncating.compared(truth - 0.1 / 255, truth, 4)
    assert torch.equal(below[0], (below[1] - 1).clamp_min(0))


def test_luma_wants_three_bands_and_rgb_takes_any():
    x = torch.rand(4, 30, 30)
    with pytest.raises(GeomoeError, match="3 bands, not 4"):
        get_protocol("mfg_hmoe").score(x, x, 2)
    assert get_protocol("hsenet").score(x, x, 2)[0] == 100


def test_an_unknown_protocol_lists_those_there_are():
    with pytest.raises(GeomoeError, match="mfg_hmoe, ttst, hsenet"):
        get_protocol("psnr")
