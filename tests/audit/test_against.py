"""Two weights files: their experts matched, and what changes said."""

import pytest
import torch

from geomoe import GeomoeError
from geomoe.audit.against import against, match_experts
from geomoe.audit.request import Request
from tests.audit.made import check_drawn, codes, plan_of, subject


def images(number=20, side=8, seed=0):
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_brightness(names, bounds=(0.25, 0.5, 0.75)):
    """Pixels by brightness to four experts, which are called ``names`` from dark to light."""

    def rule(x):
        level = torch.bucketize(x[:, 0].flatten(), torch.tensor(bounds))
        return [plan_of(torch.tensor(names)[level], max(names) + 1, (len(x), *x.shape[2:]))]

    return rule


def test_experts_are_matched_by_the_rows_they_share():
    a = plan_of(torch.tensor([0, 0, 1, 1, 2, 2]), 3, (6,))
    b = plan_of(torch.tensor([2, 2, 0, 0, 1, 0]), 3, (6,))
    assert match_experts([a], [b]).tolist() == [2, 0, 1]
    fewer = plan_of(torch.tensor([1, 1, 0, 0, 0, 1]), 2, (6,))
    assert match_experts([a, a], [fewer, fewer]).tolist() == [1, 0, -1]
    with pytest.raises(ValueError, match="6 and of 2 rows"):
        match_experts([a], [plan_of(torch.tensor([0, 1]), 3, (2,))])


def test_the_same_routing_under_other_names_agrees_wholly():
    mine = subject(images(), by_brightness((0, 1, 2, 3)))
    other = subject(images(), by_brightness((2, 3, 1, 0))).model
    section = against(mine, [other])
    found = section.data["others"][0]["layers"]["layer 0"]
    assert found["match"] == [2, 3, 1, 0]
    assert found["agreement"] == pytest.approx(1)
    assert found["chance"] == pytest.approx(0.25, abs=0.05)
    assert section.data["others"][0]["change"]["mean"] == 0
    check_drawn(section)


def test_routing_that_has_nothing_in_common_agrees_by_chance():
    def other(x):
        level = torch.bucketize(x[:, 1].flatten(), torch.tensor((0.25, 0.5, 0.75)))
        return [plan_of(level, 4, (len(x), *x.shape[2:]))]

    found = against(subject(images(), by_brightness((0, 1, 2, 3))), [subject(images(), other).model])
    layer = found.data["others"][0]["layers"]["layer 0"]
    assert layer["agreement"] == pytest.approx(layer["chance"], abs=0.06), (
        "matching alone does not make plans agree"
    )


def test_what_quality_changes_by_is_said_with_its_interval():
    def never(x):
        return torch.tensor([[0.0, 1.0]]).expand(len(x), -1)

    labels = torch.zeros(20).long()
    mine = subject(images() * 0.5, by_brightness((0, 1, 2, 3)), labels)
    other = subject(images(), by_brightness((0, 1, 2, 3)), labels, says=never).model
    section = against(mine, [other])
    found = section.data["others"][0]
    assert (section.data["before"], found["after"]) == (1, 0)
    low, high = found["change"]["interval_95"]
    assert (found["change"]["mean"], low) == (pytest.approx(-1), -1)
    assert high < -0.5


def test_weights_that_learned_from_other_samples_are_named():
    rule = by_brightness((0, 1, 2, 3))
    mine, other = subject(images(), rule), subject(images(), rule).model
    assert "other_split" not in codes(against(mine, [other]))
    other.card.recipe["split_seed"] = 1
    section = against(mine, [other])
    assert codes(section)["other_split"] == "warning"
    assert "split_seed 1, not None" in section.findings[1].text


def test_roles_of_experts_are_compared_over_seeds():
    """Experts for dark, middling and light images; under the second seed two of them are exchanged."""

    def by_image(names):
        def rule(x):
            level = torch.bucketize(x[:, 0].mean((1, 2)), torch.tensor((0.3, 0.6)))
            return [plan_of(torch.tensor(names)[level].repeat_interleave(64), 3, (len(x), 8, 8))]

        return rule

    def by_place(x):
        return [plan_of(torch.arange(64).repeat(len(x)) % 3, 3, (len(x), 8, 8))]

    level = torch.arange(30) % 3
    x = (level.float() / 3)[:, None, None, None] + images(30) * 0.2
    kinds = ("dark", "middling", "light")
    mine = subject(x, by_image((0, 1, 2)), level, classes=kinds)
    others = [subject(x, rule, level, classes=kinds).model for rule in (by_image((2, 0, 1)), by_place)]
    section = against(mine, others)
    roles = section.data["roles"]["layer 0"]
    assert roles["mine"] == list(kinds)
    assert section.data["others"][0]["layers"]["layer 0"]["match"] == [2, 0, 1]
    assert against(mine, others[:1]).data["roles"]["layer 0"]["alike"] == [1, 1, 1]
    assert roles["share"] <= 2 / 3, "experts of the second know places alone"
    assert "in 100% of all cases roles agree, 33% by chance" in against(mine, others[:1]).findings[-1].text
    assert [len(row) for row in section.tables[1].rows] == [7] * 3
    check_drawn(section)


def test_an_expert_that_is_hardly_used_has_no_role():
    unused = subject(images(), by_brightness((0, 1, 3, 3)))
    layer = against(unused, [unused.model]).data["roles"]["layer 0"]
    assert layer["mine"][2] is None
    assert layer["alike"] == [1, 1, None, 1]
    assert layer["correlation"][:2] == [pytest.approx(1), pytest.approx(1)]


def test_weights_that_cannot_be_compared_are_refused():
    rule = by_brightness((0, 1, 2, 3))
    mine = subject(images(), rule)
    other = subject(images(), rule).model
    other.card.task = "another"
    with pytest.raises(GeomoeError, match="trained for another"):
        against(mine, [other])
    with pytest.raises(GeomoeError, match="takes 1 bands"):
        against(mine, [subject(images()[:, :1], rule).model])
    with pytest.raises(GeomoeError, match="has 1 layers that route, made 2"):
        against(mine, [subject(images(), lambda x: [*rule(x), *rule(x)]).model])


def test_it_is_asked_for_by_an_option():
    asked = Request("mine", "data", against=("1.safetensors", "2.safetensors"))
    said = "geomoe audit mine --data data --out report --against 1.safetensors --against 2.safetensors"
    assert asked.command() == said
    assert Request.of({**vars(asked), "against": "1.safetensors"}).against == ("1.safetensors",), "as before"
