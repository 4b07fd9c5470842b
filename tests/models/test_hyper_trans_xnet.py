"""What a toy of HyperTransXNet would not do, and what its released program does wrong."""

import pytest
import torch

from geomoe.models.hyper_trans_xnet import ChannelFilter, DynamicFilter, HyperTransXNet, HyperTransXNetConfig
from geomoe.models.registry import build
from geomoe.moe import RoutingTrace

SMALL = {
    "bands": 6,
    "classes": ("a", "b", "c"),
    "patch": 5,
    "reduced": 6,
    "width": 8,
    "blocks": 2,
    "heads": 2,
}


def small(**options: object) -> HyperTransXNet:
    torch.manual_seed(0)
    return HyperTransXNet(HyperTransXNetConfig(**{**SMALL, **options}))  # type: ignore[arg-type]


def test_the_published_size_but_for_the_filters_and_without_the_gates_biases() -> None:
    with torch.device("meta"):
        model = build("hyper_trans_xnet", {"bands": 200, "classes": tuple(map(str, range(16)))})
    named = dict(model.named_parameters())
    filters = sum(p.numel() for name, p in named.items() if name.endswith("filter.factors"))
    biases = 4 * 4  # of the gates of four blocks over four experts
    assert sum(p.numel() for p in named.values()) - filters + biases == 13_340_970


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_router_learns(top_k: int) -> None:
    model = small(top_k=top_k).train()
    model(torch.rand(2, 6, 4, 4)).square().sum().backward()
    for block in model.blocks:
        router, experts = (
            torch.cat([p.grad.flatten() for p in part.parameters() if p.grad is not None]).norm()
            for part in (block.moe.router, block.moe.bank)
        )
        assert router > 1e-4 * experts


def test_the_filter_of_ones_changes_nothing_and_another_one_does() -> None:
    model, x = small().eval(), torch.rand(1, 6, 3, 3)
    tokens = torch.randn(2, 9, 8)
    torch.testing.assert_close(ChannelFilter(8)(tokens), tokens)
    before = model(x)
    with torch.no_grad():
        model.blocks[0].whole.filter.factors.normal_()
    assert (model(x) - before).abs().max() > 1e-5


@pytest.mark.parametrize("channels", [7, 8])
def test_the_filter_multiplies_the_spectrum(channels: int) -> None:
    torch.manual_seed(0)
    layer, x = ChannelFilter(channels), torch.randn(2, 3, channels)
    torch.nn.init.normal_(layer.factors)
    spectrum = torch.fft.rfft(x) * torch.view_as_complex(layer.factors.detach())
    torch.testing.assert_close(layer(x), torch.fft.irfft(spectrum, channels), atol=1e-5, rtol=1e-5)


def test_every_sample_makes_its_own_kernel() -> None:
    torch.manual_seed(0)
    layer = DynamicFilter(3)
    kernels = layer.make(torch.rand(2, 3, 1, 1)).view(2, 3, 9)
    assert not torch.allclose(kernels[0], kernels[1])
    flat = torch.rand(1, 3, 1, 1)
    expected = flat * layer.make(flat).view(1, 3, 9).sum(2).view(1, 3, 1, 1)
    torch.testing.assert_close(layer(flat.expand(1, 3, 4, 5)), expected.expand(1, 3, 4, 5))


@pytest.mark.parametrize("patch", [1, 3, 9])
def test_any_patch_and_a_single_one_alone_or_among_others(patch: int) -> None:
    model = small(patch=patch).eval()
    images = torch.rand(3, 6, 4, 4)
    wanted = torch.zeros(3, 4, 4, dtype=torch.bool)
    wanted[:, 2, 1] = True
    together = model(images, wanted=wanted)
    alone = model(images[1:2], wanted=wanted[1:2])
    torch.testing.assert_close(together[1:2], alone)
    torch.testing.assert_close(model(images)[:, :, 2, 1], together[:, :, 2, 1])
    assert not together[:, :, 0].any()


def test_plans_are_of_the_grid_with_those_pixels_valid_that_are_asked_for() -> None:
    model, trace = small().eval(), RoutingTrace()
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[:, :, 4:] = False
    model(torch.rand(1, 6, 4, 6), trace, valid)
    assert [plan.grid for plan in trace] == [(1, 4, 6)] * 2
    assert all(torch.equal(plan.valid.view(plan.grid), valid) for plan in trace)  # type: ignore[union-attr]


def test_what_is_not_valid_is_not_seen() -> None:
    model = small().eval()
    valid = torch.ones(1, 5, 5, dtype=torch.bool)
    valid[:, 2:, 3:] = False
    x = torch.rand(1, 6, 5, 5)
    hidden = x.masked_fill(~valid[:, None], float("nan"))
    found = model(hidden, valid=valid)
    torch.testing.assert_close(found, model(x, valid=valid))
    assert not found[:, :, 2:, 3:].any()
    assert torch.equal(model(x, valid=torch.zeros_like(valid)), torch.zeros(1, 3, 5, 5))


@pytest.mark.slow
def test_after_some_steps_every_expert_is_used() -> None:
    from geomoe.moe.objectives.balance import switch_loss

    model, trace = small(blocks=1, top_k=2).train(), RoutingTrace()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        x = torch.rand(4, 6, 4, 4, generator=generator)
        trace = RoutingTrace()
        loss = torch.nn.functional.cross_entropy(model(x, trace), (x[:, 0] * 3).long())
        (loss + 0.01 * switch_loss(trace[0].of_valid())).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert (torch.bincount(trace[0].experts.flatten(), minlength=4) > 0).all()
