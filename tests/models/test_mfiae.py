"""What a toy of experts under adaptive noise, and of instances by centres, would not do."""

import math

import pytest
import torch

from geomoe import moe
from geomoe.errors import GeomoeError
from geomoe.models.registry import build
from geomoe.moe import AdaptiveNoise, Noise, RoutingTrace

CLASSES = ("land", "building", "water")


def model(**options):
    torch.manual_seed(0)
    small = {"classes": CLASSES, "things": ("building",), "width": 16, "heads": 2, "window": 2, "hidden": 16}
    return build("mfiae", {**small, "layers": 2, **options})


def images(batch=2, side=64):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_noise_explores_in_training_and_rests_in_evaluation():
    network, x = model(), images()
    for training in (True, False):
        network.train(training)
        traces = [RoutingTrace(), RoutingTrace()]
        first, second = (network(x, trace) for trace in traces)
        pairs = list(zip(*traces, strict=True))
        assert len(pairs) == 2 * 3
        differ = torch.cat([(a.experts != b.experts).any(1) for a, b in pairs]).float().mean()
        assert torch.equal(first, second) != training
        assert (differ > 0.01) == training
        assert all((a.noise is not None) == training for a, _ in pairs)


def test_noise_is_as_wide_as_the_row_is_sure():
    noise, plain = AdaptiveNoise(6, 4), Noise(6, 4)
    torch.nn.init.normal_(noise.width.weight)
    plain.load_state_dict(noise.state_dict())
    rows = torch.randn(3, 6)
    logits = torch.tensor([[2.0] * 4, [200.0, 0, 0, 0], [math.log(3), 0, 0, -200]])
    found, wide = noise(rows, logits), plain(rows, logits)
    torch.testing.assert_close(found[0], torch.zeros(4))
    torch.testing.assert_close(found[1], wide[1])
    entropy = -(0.6 * math.log(0.6) + 2 * 0.2 * math.log(0.2))
    torch.testing.assert_close(found[2], wide[2] * (1 - entropy / math.log(4)))


def test_balance_is_0_for_even_use_and_3_for_one_expert():
    even = moe.RoutingPlan(*(torch.tensor(x) for x in ([[0], [1], [2], [3]], [[1.0]] * 4)),
                           torch.eye(4), torch.eye(4), (4,), (4,))  # fmt: skip
    one = even.spread(torch.zeros(4, dtype=torch.int64), (4,))
    assert [float(moe.importance_loss(plan)) for plan in (even, one)] == pytest.approx([0, 3])


def test_the_width_of_the_noise_learns_from_the_load():
    network, trace = model().train(), RoutingTrace()
    network(images(), trace)
    torch.stack([moe.load_loss(plan) for plan in trace]).sum().backward()
    for block in network.blocks:
        router = block.ffn.moe.router
        assert router.noise.width.weight.grad.abs().sum() > 0
        assert router.score.gate.weight.grad.abs().sum() > 0


def test_plain_noise_is_shazeers():
    router = model(noise="plain").blocks[0].ffn.moe.router
    assert type(router.noise) is Noise
    assert type(model().blocks[0].ffn.moe.router.noise) is AdaptiveNoise


@pytest.mark.slow
def test_it_learns_where_things_are():
    """Squares that touch, told apart by a line of another colour."""
    mask = torch.zeros(1, 64, 64, dtype=torch.int64)
    mask[0, 8:24, 8:24] = mask[0, 8:24, 32:48] = mask[0, 36:56, 20:40] = 1
    x = mask[:, None].expand(1, 3, 64, 64) * 0.8
    network = model(width=32, layers=1).train()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    weights = {"centres": 200.0, "offsets": 0.01}
    losses = []
    for _ in range(60):
        answers = network.answers(x)
        terms = {name: network.objectives[name](answers, mask) for name in weights}
        loss = torch.nn.functional.cross_entropy(answers["classes"], mask)
        loss = loss + sum(weights[name] * terms[name] for name in weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append({name: float(term.detach()) for name, term in terms.items()})
    assert losses[-1]["centres"] < 0.3 * losses[0]["centres"]
    assert losses[-1]["offsets"] < 0.6 * losses[0]["offsets"]
    found, true = network.eval().instances(x), network.true_instances(mask)
    assert true[..., 1].amax() == 3
    overlaps = []
    for number in (1, 2, 3):
        square = true[..., 1] == number
        mine = found[..., 1] == found[..., 1][square].mode().values
        overlaps.append(float((square & mine).sum() / (square | mine).sum()))
    assert min(overlaps) > 0.5, overlaps
    assert found[..., 1].unique().numel() == 4, "three things, and what is none"


def test_losses_are_of_known_pixels_and_of_large_enough_things():
    network, x = model(), images(side=32)
    answers = {name: value.detach() for name, value in network.answers(x).items()}
    mask = torch.zeros(2, 32, 32, dtype=torch.int64)
    mask[:, 10:18, 10:18] = 1
    mask[0, 25, 25] = 1  # no instance
    mask[:, :4] = -1
    centres, offsets = (network.objectives[name](answers, mask) for name in ("centres", "offsets"))
    hidden = {**answers, "centres": answers["centres"].clone(), "offsets": answers["offsets"].clone()}
    hidden["centres"][:, :, :4] = 9.0
    hidden["offsets"][:, :, mask[0] != 1] = 9.0
    hidden["offsets"][0, :, 25, 25] = 9.0
    assert network.objectives["centres"](hidden, mask) == centres
    assert network.objectives["offsets"](hidden, mask) == offsets
    assert network.objectives["offsets"](answers, mask * 0) == 0
    assert network.true_instances(mask)[0, 25, 25].tolist() == [-1, 0]


def test_offsets_are_the_way_to_the_middle_rows_first():
    """By hand, of a thing of 5 rows and 11 columns: what is right costs nothing and finds it again."""
    network = model(least=1)
    mask = torch.zeros(1, 16, 16, dtype=torch.int64)
    mask[0, 4:9, 2:13] = 1
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    offsets = torch.stack([6 - rows, 7 - columns])[None]
    loss = network.objectives["offsets"]
    assert float(loss({"offsets": offsets}, mask)) == 0
    assert float(loss({"offsets": offsets.flip(1)}, mask)) > 1
    assert float(loss({"offsets": -offsets}, mask)) > 1
    assert float(loss({"offsets": offsets + 0.5}, mask)) == pytest.approx(1), "rows and columns, added up"


def test_what_is_not_valid_is_not_seen_or_routed():
    network, x = model().eval(), images(1, 64)
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, :, 33:] = False
    trace = RoutingTrace()
    found = network(x.masked_fill(~valid[:, None], torch.nan), trace, valid)
    assert found.isfinite().all()
    assert torch.equal(found, network(x.masked_fill(~valid[:, None], 0.2), None, valid))
    assert [int(plan.valid.sum()) for plan in trace][:3] == [16 * 9, 8 * 5, 4 * 3]
    assert [plan.grid for plan in trace][:3] == [(1, 16, 16), (1, 8, 8), (1, 4, 4)]


def test_twins_are_as_large_as_they_say():
    with torch.device("meta"):
        full, active, whole, gated = (
            build("mfiae", {"twin": twin}) for twin in ("none", "active", "parameters", "gated")
        )
    count = [sum(p.numel() for p in network.parameters()) for network in (full, active, whole, gated)]
    assert count[2] == pytest.approx(count[0], rel=0.01)
    assert count[1] == pytest.approx(count[3], rel=0.01)
    assert count[1] < count[0]
    for twin in ("active", "parameters", "gated", "frozen"):
        trace = RoutingTrace()
        assert model(twin=twin)(images(), trace).shape == (2, 3, 64, 64)
        assert bool(trace) == (twin in ("gated", "frozen"))


def test_bad_options_are_refused():
    for options, said in (
        ({"things": ("roof",)}, r"things=\('roof',\): expected some of land, building, water"),
        ({"heads": 3}, "divisor of width=16"), ({"top_k": 9}, "top_k=9: there are 4"),
    ):  # fmt: skip
        with pytest.raises(GeomoeError, match=said):
            model(**options)
