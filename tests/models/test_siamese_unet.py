"""A siamese U-Net sees both dates by the same weights."""

import pytest
import torch

from geomoe.models.siamese_unet import SiameseUNet, SiameseUNetConfig


def small(**options: object) -> SiameseUNet:
    torch.manual_seed(0)
    return SiameseUNet(SiameseUNetConfig(**{"width": 4, "depth": 2, **options})).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("fusion", "alike"), [("difference", True), ("concatenation", False)])
def test_the_order_of_dates_matters_to_a_concatenation_alone(fusion: str, alike: bool) -> None:
    model, x = small(fusion=fusion), torch.rand(1, 6, 8, 8)
    swapped = torch.cat([x[:, 3:], x[:, :3]], 1)
    assert torch.equal(model(x), model(swapped)) == alike
    one, other = model.dates(x)
    assert torch.equal(model.features(one)[2], model.features(model.dates(swapped)[1])[2])
    assert not torch.equal(one.image, other.image)


def test_dates_that_are_equal_differ_nowhere() -> None:
    model, x = small(fusion="difference"), torch.rand(1, 3, 8, 8)
    same = model(torch.cat([x, x], 1))
    assert torch.equal(same, model(torch.zeros(1, 6, 8, 8))), "whatever they show"


def test_a_date_of_one_band_is_shown_as_three_that_are_alike() -> None:
    model = small(bands=4, sensors={"before": 1, "after": 3})
    x = torch.rand(1, 4, 8, 8)
    first, second = model.dates(x)
    assert first.image.shape == second.image.shape == (1, 3, 8, 8)
    assert torch.equal(first.image[:, 0], first.image[:, 2])
    assert first.there is None


def test_what_a_date_lacks_is_seen_as_its_mean() -> None:
    model = small(mean=(0.4,))
    x, present = torch.rand(1, 6, 7, 8), torch.ones(1, 2, 7, 8, dtype=torch.bool)
    present[:, 0, 2:] = False
    hidden, mean = x.clone(), x.clone()
    hidden[:, :3, 2:], mean[:, :3, 2:] = torch.nan, 0.4
    found = model(hidden, present=present)
    assert found.isfinite().all()
    assert torch.equal(found, model(mean))
