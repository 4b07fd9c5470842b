"""Settings that a schedule changes are saved with the weights."""

import copy
import io
import pickle

import pytest
import torch

from geomoe import moe
from geomoe.moe.surgery import NormScore, NormThreshold

C = 6


def curriculum():
    adjust = [moe.Temperature(2.0), moe.ExpertDropout(0.2)]
    return moe.Router(moe.LinearScore(C, 8), moe.TopK(8), adjust=adjust)


def schedule(router):
    return moe.RoutingSchedule(
        router, top_k=moe.Ramp(8, 2), temperature=moe.Ramp(2.0, 0.3), dropout=moe.Ramp(0.2, 0.0)
    )


def stored(router):
    file = io.BytesIO()
    torch.save(router.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def of(router):
    return router.choice.k, router.adjust[0].temperature, router.adjust[1].rate


@pytest.mark.parametrize(("share", "expected"), [(0.5, (5, 1.15, 0.1)), (1.0, (2, 0.3, 0.0))])
def test_a_model_that_is_loaded_is_where_the_schedule_was(share, expected):
    router, rows = curriculum(), torch.randn(20, C)
    schedule(router).step(share)
    again = curriculum()
    again.load_state_dict(stored(router))
    assert of(again) == of(router) == pytest.approx(expected)
    assert isinstance(again.choice.k, int)
    assert again.eval()(rows).digest() == router.eval()(rows).digest()
    assert set(router.state_dict()) - set(curriculum().state_dict()) == {
        "choice.k",
        "adjust.0.temperature",
        "adjust.1.rate",
    }


def test_a_state_from_the_start_is_that_of_the_start():
    router = curriculum()
    assert all(tensor.dim() > 0 for tensor in stored(router).values())  # nothing that was not there before
    ramps = schedule(router)
    start = stored(router)
    ramps.step(1.0)
    router.load_state_dict(curriculum().state_dict())  # weights that know of no schedule
    assert router.choice.k == 2
    router.load_state_dict(start)
    assert of(router) == (8, 2.0, 0.2)


def test_settings_go_with_copies():
    router = curriculum()
    schedule(router).step(1.0)
    for other in (copy.deepcopy(router), pickle.loads(pickle.dumps(router))):
        assert of(other) == of(router)
        other.choice.k = 3
        assert int(other.state_dict()["choice.k"]) == 3
        assert int(router.state_dict()["choice.k"]) == 2
    whole = torch.nn.ModuleDict({"layer": moe.MoE(router, moe.FeedForwardExperts(C, 8, 8))})
    other = torch.nn.ModuleDict({"layer": moe.MoE(curriculum(), moe.FeedForwardExperts(C, 8, 8))})
    other.load_state_dict(whole.state_dict())
    assert other["layer"].router.choice.k == 2
    with pytest.raises(RuntimeError, match="Unexpected"):
        other.load_state_dict({**whole.state_dict(), "layer.router.choice.mode": torch.zeros(())})


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (lambda: moe.ElasticTopK(2, (1, 2, 4)), "k", 1),
        (lambda: NormThreshold(0.1), "tau", 0.4),
        (lambda: moe.LeastLoss(3), "k", 1),
        (lambda: moe.TopK(3), "k", 1),
    ],
)
def test_all_that_may_be_changed_is_saved(make, name, value):
    score = NormScore(C, 4, 8) if name == "tau" else moe.LinearScore(C, 4)
    router, again = moe.Router(score, make()), moe.Router(copy.deepcopy(score), make())
    setattr(router.choice, name, value)
    again.load_state_dict(stored(router))
    assert getattr(again.choice, name) == value


def test_torchs_own_way_to_a_state_knows_settings_too():
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    router, again = curriculum(), curriculum()
    schedule(router).step(1.0)
    set_model_state_dict(again, get_model_state_dict(router))
    assert of(again) == of(router)
