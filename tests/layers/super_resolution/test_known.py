"""What is known of an image, told to routers."""

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.layers.super_resolution.known import KERNELS, SENSORS, Informed, Known
from geomoe.models import load
from geomoe.models.registry import build
from geomoe.models.weights import load_as
from geomoe.tasks.super_resolution import SuperResolution

OPTIONS = {
    "scale": 2, "embed_dim": 8, "depths": (1, 1), "heads": 2, "window": 4, "squeeze": 4, "width": 4,
    "expert_width": 4, "router_width": 4, "experts_per_group": 2,
}  # fmt: skip


def test_nothing_known_is_zero_and_each_fact_has_its_place():
    assert Known().encoded() == [0.0] * Known.WIDTH
    facts = [Known(sensor=name) for name in SENSORS] + [Known(kernel=name) for name in KERNELS]
    facts += [Known(gsd=10.0), Known(mtf=0.3), Known(noise=0.01)]
    encoded = Known.batch(facts)
    assert encoded.shape == (len(facts), Known.WIDTH)
    assert torch.linalg.matrix_rank(encoded) == len(facts)
    assert Known(sensor="another") != Known()
    assert Known(sensor="another").encoded() == Known().encoded()


def test_facts_are_forgotten_one_by_one():
    known = Known("landsat", 30.0, "sensor", 0.2, 0.01)
    rng = np.random.default_rng(0)
    left = [known.forgetting(rng, 0.5) for _ in range(200)]
    assert 70 < sum(one.gsd is None for one in left) < 130
    assert len(set(left)) > 20
    assert known.forgetting(rng, 0.0) == known
    assert known.forgetting(rng, 1.0) == Known()


def test_an_informed_model_begins_as_one_that_is_not_and_learns_to_listen():
    plain, informed = build("mfg_hmoe_light", OPTIONS), build("mfg_hmoe_light", {**OPTIONS, "informed": True})
    missing = informed.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys == ["informed.facts.weight"]
    assert not plain.contract.informed
    assert informed.contract.informed
    x = torch.rand(2, 3, 8, 8)
    known = Known.batch([Known(kernel="bilinear"), Known(gsd=10.0)])
    torch.testing.assert_close(informed(x, known=known), plain(x))
    informed(x, known=known).square().sum().backward()
    gradient = informed.informed.facts.weight.grad
    assert gradient.abs().sum() > 0
    assert torch.equal(gradient.abs().sum(0) > 0, known.abs().sum(0) > 0)  # of what was known alone
    with torch.no_grad():
        informed.informed.facts.weight.normal_()
    assert not torch.allclose(informed(x, known=known), informed(x))
    torch.testing.assert_close(informed(x, known=torch.zeros_like(known)), informed(x))


def test_facts_reach_every_pixel_of_their_image_alone():
    informed = Informed(4)
    torch.nn.init.normal_(informed.facts.weight)
    moved = informed(torch.zeros(2, 4, 3, 5), Known.batch([Known(gsd=10.0), Known()]))
    assert torch.equal(moved[0], moved[0, :, :1, :1].expand(4, 3, 5))
    assert moved[0].abs().sum() > 0
    assert moved[1].abs().sum() == 0


@pytest.mark.parametrize("head", ["dense", "mlp"])
def test_a_head_without_routers_cannot_be_informed(head):
    with pytest.raises(GeomoeError, match="no routers to tell"):
        build("mfg_hmoe_light", {**OPTIONS, "informed": True, "head": head})


def test_trained_weights_go_on_as_informed_ones():
    shipped = load("mfg_hmoe_light", 2)
    if shipped.contract.informed:
        pytest.skip("the weights that ship are informed")
    task = SuperResolution("mfg_hmoe_light", 2, options={"informed": True}, start="mfg_hmoe_light")
    x = torch.rand(1, 3, 8, 8)
    task.model.eval()
    torch.testing.assert_close(task.model(x), shipped.model(x))
    assert task.start.hash == shipped.hash
    with pytest.raises(GeomoeError, match="not trained with top_k=2"):
        load_as("mfg_hmoe_light", "mfg_hmoe_light", {"scale": 2, "top_k": 2, "informed": True})
