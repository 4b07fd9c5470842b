"""Images as another sensor would have taken them."""

import pytest
import torch

from geomoe import GeomoeError
from geomoe.audit.damage import Spread, damages
from geomoe.data.other_sensor import as_other_sensor
from geomoe.tasks.stream import Named


def test_bands_are_mixed_and_darker():
    image = torch.zeros(1, 3, 2, 2)
    image[:, 1] = 1.0
    expected = torch.tensor([0.85 * 0.15, 0.85 * 0.8, 0.85 * 0.2])
    torch.testing.assert_close(as_other_sensor(image)[0, :, 0, 0], expected)
    torch.testing.assert_close(as_other_sensor(torch.ones(3, 2, 2)), torch.full((3, 2, 2), 0.85))


def test_only_images_of_three_bands_have_another_sensor():
    with pytest.raises(GeomoeError, match="known for images of 3 bands, not of 4"):
        as_other_sensor(torch.rand(4, 2, 2))


def test_samples_are_shown_so_with_their_truth_as_it_is():
    sample = {"image": torch.rand(3, 4, 4), "mask": torch.ones(4, 4).long()}
    [(name, shown)] = Named("made", [("one", sample)]).of_other_sensor().samples
    assert name == "one"
    assert torch.equal(shown["image"], as_other_sensor(sample["image"]))
    assert torch.equal(shown["mask"], sample["mask"])


def test_an_audit_tries_it_on_three_bands_of_one_sensor():
    def tried(bands, sensors):
        found = damages(Spread.of(iter((torch.rand(2, bands, 8, 8),))), 0, sensors)
        return [way for way in found if way.kind == "other sensor"]

    [way] = tried(3, {})
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(way.apply(x, 0), as_other_sensor(x))
    assert tried(4, {}) == tried(3, {"visible": 2, "height": 1}) == []
