"""MixStyle: statistics change, what is drawn on them does not."""

import pytest
import torch

from geomoe.layers.mix_style import MixStyle, mix_styles

X = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3, 0.5, 2]).view(
    4, 1, 1, 1
)
OTHER = torch.tensor([1, 2, 3, 0])


def test_a_share_of_one_is_the_identity():
    torch.testing.assert_close(mix_styles(X, OTHER, torch.ones(4)), X)


def test_a_share_of_none_takes_the_partners_mean_and_deviation():
    mixed = mix_styles(X, OTHER, torch.zeros(4))
    torch.testing.assert_close(mixed.mean((2, 3)), X.mean((2, 3))[OTHER])
    torch.testing.assert_close(mixed.std((2, 3)), X.std((2, 3))[OTHER], atol=1e-4, rtol=1e-4)
    for before, after in zip(X[:, 0].flatten(1), mixed[:, 0].flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.9999, "content stays"


def test_statistics_between_are_a_straight_line():
    share = torch.tensor([0.25, 0.5, 0.75, 1.0])
    mean = X.mean((2, 3))
    expected = share[:, None] * mean + (1 - share[:, None]) * mean[OTHER]
    torch.testing.assert_close(mix_styles(X, OTHER, share).mean((2, 3)), expected)


def test_in_evaluation_nothing_is_mixed_and_a_sample_does_not_depend_on_its_batch():
    layer = MixStyle(probability=1.0).eval()
    assert torch.equal(layer(X), X)
    assert torch.equal(layer(X)[1:2], layer(X[1:2]))


def test_in_training_a_batch_is_mixed_at_the_rate_that_is_asked_for():
    torch.manual_seed(0)
    layer = MixStyle(probability=0.5)
    mixed = sum(not torch.equal(layer(X), X) for _ in range(200))
    assert 70 < mixed < 130
    assert torch.equal(MixStyle(probability=0.0)(X), X)


def test_one_sample_alone_and_one_pixel_are_no_fault():
    torch.manual_seed(0)
    layer = MixStyle(probability=1.0)
    assert torch.equal(layer(X[:1]), X[:1])
    assert layer(X[:0]).shape == X[:0].shape
    assert layer(torch.rand(2, 3, 1, 1)).isfinite().all()


def test_no_gradient_passes_through_statistics():
    x = X.clone().requires_grad_()
    mix_styles(x, OTHER, torch.zeros(4)).sum().backward()
    spread = X.var((2, 3), correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(x.grad, (spread[OTHER] / spread).expand_as(X), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"probability": 1.5}, {"concentration": 0.0}])
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MixStyle(**options)
