"""Sensors that a sample lacks."""

import pytest
import torch

from geomoe import GeomoeError
from geomoe.layers.missing import Placeholders, drop_sensors, pattern_count, pattern_of


def test_every_pattern_has_its_number() -> None:
    every = torch.tensor([[a, b, c] for c in (0, 1) for b in (0, 1) for a in (0, 1)][1:]).bool()
    assert pattern_of(every).tolist() == list(range(pattern_count(3))) == list(range(7))


def test_a_sample_that_lacks_all_is_refused_in_a_line() -> None:
    with pytest.raises(GeomoeError, match="a sample lacks every sensor; expected one at least of each"):
        pattern_of(torch.tensor([[True, True], [False, False]]))


def test_a_share_of_the_samples_loses_some_but_never_all_and_gains_none() -> None:
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [True, True, False], [False, False, True]]).repeat(1000, 1)
    dropped = drop_sensors(present, 0.7)
    assert not (dropped & ~present).any()
    assert dropped.any(1).all()
    changed = (dropped != present).any(1).view(-1, 3).float().mean(0)
    torch.testing.assert_close(changed, torch.tensor([0.7, 0.7, 0.0]), atol=0.05, rtol=0)
    found = torch.bincount(pattern_of(dropped[::3]), minlength=7)[:6] / 700
    torch.testing.assert_close(found, torch.full((6,), 1 / 6), atol=0.04, rtol=0)
    assert torch.equal(drop_sensors(present, 0.0), present)


def test_a_placeholder_is_there_whatever_the_missing_tokens_are() -> None:
    torch.manual_seed(0)
    layer, tokens = Placeholders(2, 3), torch.randn(2, 2, 4, 3, requires_grad=True)
    present = torch.tensor([[True, False], [True, True]])
    out = layer(tokens.where(present[..., None, None], float("nan")), present)
    assert torch.equal(out[0, 1], layer.tokens[1].expand(4, 3))
    assert torch.equal(out[1], tokens[1])
    out.sum().backward()
    assert not tokens.grad[0, 1].any()
    assert torch.equal(layer.tokens.grad.squeeze(1), torch.tensor([[0.0] * 3, [4.0] * 3]))
