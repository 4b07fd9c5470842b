"""Damages by hand, and what they do to a model whose answer and routing are known."""

from dataclasses import replace

import pytest
import torch

from geomoe.audit.corruption import corruption
from geomoe.audit.damage import Spread, blurred, compressed, damages, moved
from geomoe.layers.sensors import by_band
from tests.audit.made import MadeTask, check_drawn, codes, plan_of, subject


def images(number=20, side=16, bands=3, seed=0):
    return torch.rand(number, bands, side, side, generator=torch.Generator().manual_seed(seed))


def by_first_band(x):
    return [plan_of((x[:, 0] > 0.5).long().flatten(), 2, (len(x), *x.shape[2:]))]


def of_first_band(x):
    """Class 1 where the first band is above 0.5 on average."""
    light = (x[:, :1].mean((2, 3)) > 0.5).float()
    return torch.cat([1 - light, light], 1)


def light_and_dark():
    light = torch.tensor([0, 1] * 10)
    return images() * 0.4 + 0.6 * light[:, None, None, None], light


def test_spread_is_that_of_all_batches():
    x = images(6)
    spread = Spread.of(iter((x[:2], x[2:])))
    torch.testing.assert_close(spread.mean[:, 0, 0], x.mean((0, 2, 3)))
    torch.testing.assert_close(spread.std[:, 0, 0], x.std((0, 2, 3), correction=0))
    torch.testing.assert_close(spread.high[:, 0, 0], x.amax((0, 2, 3)))


def test_moving_and_blurring_are_what_they_say():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    assert moved(x, 1.0)[0, 0, 5, 5] == pytest.approx(1)
    half = moved(x, 0.5)[0, 0]
    assert half[4:6, 4:6].flatten().tolist() == pytest.approx([0.25] * 4)
    soft = blurred(x, 1.0)[0, 0]
    at = torch.arange(9) - 4.0
    assert soft.sum() == pytest.approx(1, abs=1e-5)
    assert (soft.sum(0) * at**2).sum() == pytest.approx(1, rel=0.05), "the variance of the kernel"
    ramp = torch.arange(8.0).expand(1, 2, 8, 8)
    torch.testing.assert_close(blurred(ramp, 0.5)[..., 3:5], ramp[..., 3:5])


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_jpeg_is_near_and_nearer_at_higher_quality(bands):
    x = blurred(images(2, 32, bands), 2.0) * 4000
    spread = Spread.of(iter((x,)))
    off = [(compressed(x, quality, spread) - x).abs().mean() for quality in (90, 20)]
    assert 0 < off[0] < off[1] < 0.5 * spread.std.mean()


def test_every_kind_is_tried_from_weak_to_strong():
    x = images(4, bands=20)
    found = damages(Spread.of(iter((x,))), 0)
    kinds = [way.kind for way in found]
    assert [kinds.count(kind) for kind in dict.fromkeys(kinds)] == [3, 3, 3, 3, 3, 8, 3]
    off = [float((way.apply(x, 0) - x).abs().mean()) for way in found]
    for first in (0, 3, 6, 9, 12, 23):
        assert off[first] < off[first + 1] < off[first + 2], found[first].kind
    missing = next(way for way in found if way.kind == "missing band")
    assert missing.strength == "bands 1-3"
    assert torch.equal(missing.apply(x, 0)[:, 3:], x[:, 3:])
    alone = damages(Spread.of(iter((x[:, :1],))), 0)
    assert "missing band" not in {way.kind for way in alone}


def test_each_sensor_is_taken_away_and_moved_while_the_others_stay():
    x = blurred(images(4, bands=5), 1.0)
    spread = Spread.of(iter((x,)))
    found = damages(spread, 0, {"visible": 3, "height": 2})
    missing = [way for way in found if way.kind == "missing sensor"]
    assert [(way.strength, way.lost) for way in missing] == [("visible", "visible"), ("height", "height")]
    bare = missing[1].apply(x, 0)
    assert torch.equal(bare[:, :3], x[:, :3])
    torch.testing.assert_close(bare[:, 3:], spread.mean[3:].expand(4, 2, 16, 16))
    apart = [way for way in found if way.kind == "sensors apart"]
    assert [way.strength for way in apart] == [
        f"{n}, {s} px" for n in ("visible", "height") for s in (0.25, 0.5, 1)
    ]
    shifted = apart[1].apply(x, 0)
    assert torch.equal(shifted[:, 3:], x[:, 3:])
    torch.testing.assert_close(shifted[:, :3], moved(x[:, :3], 0.5))
    assert not [way for way in damages(spread, 0) if "sensor" in way.kind]


def test_the_band_that_all_depends_on_is_found():
    x, labels = light_and_dark()
    section = corruption(subject(x, by_first_band, labels, says=of_first_band))
    by = {(each["kind"], each["strength"]): each for each in section.data["damages"]}
    assert by["missing band", "band 1"]["change"] == pytest.approx(-0.5, abs=0.2)
    other = by["missing band", "band 2"]
    assert (other["change"], other["agreement"]) == (0, 1)
    assert other["interval_95"][0] < 0 < other["interval_95"][1], "20 samples do not show that none changes"
    assert other["entropy"] == pytest.approx(section.data["clean_entropy"])
    assert by["noise", "0.1 std"]["agreement"] > by["noise", "0.5 std"]["agreement"]
    assert by["contrast", "x 0.25"]["change"] == 0
    assert "most_harmful" in codes(section)
    check_drawn(section)


class TwoSensors(MadeTask):
    """Tells the model which sensors there are; it answers by the first band, of the ``visible`` one."""

    def predict(self, batch, trace=None):
        assert "present" in batch
        image = batch["image"].masked_fill(~by_band(batch["present"], SENSORS), 0.0)
        return self.model(image, trace=trace)


SENSORS = {"visible": 2, "height": 1}


def two_sensors(rule, says=of_first_band):
    x, labels = light_and_dark()
    made = subject(x, rule, labels, says=says)
    [(name, given)] = made.model.contract.inputs.items()
    made.model.contract = replace(made.model.contract, inputs={name: replace(given, sensors=SENSORS)})
    for _, sample in made.samples.samples:
        sample["present"] = torch.ones(2, 16, 16, dtype=torch.bool)
    made.__dict__["task"] = TwoSensors(made.model.model)
    return corruption(made)


def test_a_sensor_that_a_model_ignores_is_named():
    section = two_sensors(by_first_band)
    [ignored] = [finding for finding in section.findings if finding.code == "sensor_ignored"]
    assert ignored.level == "warning"
    assert "height" in ignored.text
    [needed] = [finding for finding in section.findings if finding.code == "sensor_needed"]
    assert "visible" in needed.text
    by = {(each["kind"], each["strength"]): each for each in section.data["damages"]}
    without, low = by["missing sensor", "visible"], by["missing sensor", "visible"]["interval_95"][0]
    assert low < without["change"] == -0.5, "all are dark then"
    assert without["agreement"] < 0.9
    same = by["missing sensor", "height"]
    assert (same["change"], same["agreement"]) == (0, 1)
    assert same["agreement_95"][0] < 1, "20 samples do not show that all plans stay"
    assert by["sensors apart", "height, 1 px"]["agreement"] == 1
    check_drawn(section)


def test_a_sensor_that_routing_alone_looks_at_is_not_called_ignored_where_answers_change():
    def says(x):
        """The first band by far, and the last one by little."""
        light = (x[:, :1].mean((2, 3)) - 0.5) * 20 + 0.01 * x[:, 2:].mean((2, 3))
        return torch.cat([-light, light], 1).softmax(1)

    section = two_sensors(by_first_band, says)
    assert "sensor_ignored" not in codes(section)
    [finding] = [finding for finding in section.findings if finding.code == "sensor_not_needed"]
    assert "height" in finding.text


def test_one_large_sample_has_an_interval_over_its_blocks():
    x = images(1, 64)
    masks = (x[:, 0] > 0.5).long()
    section = corruption(
        subject(x, by_first_band, masks=masks, says=lambda x: torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1))
    )
    noise = section.data["damages"][2]
    low, high = noise["interval_95"]
    assert low < noise["change"] < high < 0
    check_drawn(section)


def test_a_model_that_routes_nothing_has_quality_alone():
    x, labels = light_and_dark()
    section = corruption(subject(x, lambda x: [], labels, says=of_first_band))
    assert section.data["clean_entropy"] is None
    assert section.data["damages"][0]["agreement"] is None
    check_drawn(section)


def test_an_image_that_is_given_is_compared_with_one_in_the_same_light():
    class Copy(MadeTask):
        def by_item(self, answer, batch):
            return {"oa": -(answer - batch["target"]).abs().mean((1, 2, 3))}

    x = images()
    made = subject(x, by_first_band, says=lambda x: x, kind="image", classes=())
    for _, sample in made.samples.samples:
        sample["target"] = sample["image"]
    made.__dict__["task"] = Copy(made.model.model)
    by = {(each["kind"], each["strength"]): each["change"] for each in corruption(made).data["damages"]}
    assert by["brightness", "+1 std"] == by["contrast", "x 0.25"] == 0
    assert by["noise", "0.1 std"] < 0
