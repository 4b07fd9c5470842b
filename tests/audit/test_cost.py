"""Costs beside dense twins: what is equal by how they are made is equal."""

import pytest
import torch

from geomoe.audit.cost import _Arm, _findings, cost
from geomoe.audit.section import TIMINGS
from geomoe.audit.subject import Subject
from geomoe.models.registry import build
from geomoe.models.weights import Card, load, save
from geomoe.tasks.stream import Named
from tests.audit.made import check_drawn, codes, plan_of, subject


def weights(tmp_path, model, **options):
    classes = ["field", "water"]
    options = {"classes": classes, "patch": 8, "embed_dim": 32, "depth": 4, "heads": 2, **options}
    card = Card(
        model=model,
        config=options,
        radiometry="unit",
        data={"classes": dict.fromkeys(classes, 1)},
        degradation="",
        recipe={"size": 32},
        protocol="classification",
        scores={},
        commit="",
        date="",
        licence="",
        task="classification",
    )
    torch.manual_seed(0)
    path = tmp_path / f"{model}.safetensors"
    save(path, build(model, options), card)
    images = torch.rand(4, 3, 32, 32)
    samples = [(f"{i}", {"image": x, "label": torch.tensor(0)}) for i, x in enumerate(images)]
    return Subject(load(str(path)), Named("made", samples))


@pytest.mark.slow
def test_a_mixture_is_measured_beside_its_dense_twins(tmp_path):
    section = cost(weights(tmp_path, "vmoe_ti", experts=8, router_options={"top_k": 1}))
    networks = section.data["networks"]
    mine, active, parameters = networks.values()
    assert list(networks) == ["the model", "dense twin, equal active cost", "dense twin, equal parameters"]
    assert active["parameters"] == pytest.approx(mine["active_parameters"], rel=0.02)
    assert parameters["parameters"] == pytest.approx(mine["parameters"], rel=0.02)
    assert active["active_parameters"] == active["parameters"]
    assert active["gflop"] < mine["gflop"] < parameters["gflop"]
    clocked = section.data[TIMINGS]["networks"].values()
    assert all(len(each["seconds"]) == 9 and min(each["seconds"]) > 0 for each in clocked)
    assert all(each["peak_mb"] > 50 for each in clocked)
    assert codes(section) == {"cost_of_routing": "note"}
    check_drawn(section)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [([2.0, 2.1, 2.2, 2.1], "takes 2.10 times as long"), ([2.0, 2.0, 40.0, 40.0], "cannot be told")],
)
def test_times_of_a_busy_machine_are_not_compared(seconds, said):
    arms = {
        "the model": _Arm(torch.nn.Identity(), "", 2, 1, 1.0, seconds),
        "twin": _Arm(torch.nn.Identity(), "active", 1, 1, 1.0, [1.0] * 4),
    }
    [finding] = _findings(arms, [])
    assert said in finding.text


def test_a_model_without_twins_says_so():
    def rule(x):
        return [plan_of(torch.zeros(len(x)).long(), 2, (len(x),))]

    section = cost(subject(torch.rand(3, 3, 8, 8), rule))
    assert codes(section) == {"no_twin": "note"}
    assert "no option for: dense twin, equal active cost" in section.text
    assert section.tables[0].rows[0][1] == 1, "one parameter"
    check_drawn(section)
