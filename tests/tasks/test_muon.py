import copy

import pytest
import torch
from torch import nn

from geomoe.tasks.muon import Muon, matrices, orthogonal
from tests.models.sizes import tiny


@pytest.mark.parametrize("shape", [(3, 16, 90), (2, 90, 16), (1, 20, 20)])
def test_orthogonal_brings_all_singular_values_near_one_and_keeps_their_vectors(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spread = torch.linspace(0.05, 1, min(shape[1:]))
    found = orthogonal(u * spread @ v)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.4
    inside = u.mT @ found @ v.mT
    assert (inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))).abs().max() < 0.15


def test_matrices_are_those_of_the_blocks_and_no_other():
    model = tiny("swin2_mose")
    named = {id(p): n for n, p in model.named_parameters()}
    found = [named[id(p)] for p in matrices(model)]
    assert found
    assert all(".blocks." in name or name.startswith("groups.") for name in found)
    others = ("router", "bank", "bias", "norm", "local", "shallow", "head")
    assert not [name for name in found if any(part in name for part in others)]
    assert any(name.endswith("qkv.weight") for name in found)
    assert any(name.endswith("conv.weight") for name in found)


def train(make, module, steps=4):
    optimiser = make(module)
    for step in range(steps):
        torch.manual_seed(step)
        x = torch.randn(4, 6, 5, 5)
        optimiser.zero_grad()
        (module(x) - x).square().mean().backward()
        optimiser.step()
    return [p.detach().clone() for p in module.parameters()], optimiser


def convolutions(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1))


def test_what_is_no_matrix_is_trained_as_by_adam():
    ours, _ = train(lambda m: Muon(m.parameters(), [], 1e-2), convolutions())
    adam, _ = train(lambda m: torch.optim.Adam(m.parameters(), 1e-2, (0.9, 0.99)), convolutions())
    for mine, theirs in zip(ours, adam, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def muon(module):
    return Muon(module.parameters(), [module[0].weight, module[2].weight], 1e-2)


def test_a_step_moves_entries_as_far_as_adams():
    before = convolutions()
    after, _ = train(muon, convolutions(), steps=1)
    for old, new in zip(before.parameters(), after, strict=True):
        moved = (new - old).square().mean().sqrt()
        assert 0.1e-2 < moved < 1.1e-2


def test_the_memory_format_of_weights_changes_nothing():
    plain, _ = train(muon, convolutions())
    last, _ = train(muon, convolutions().to(memory_format=torch.channels_last))
    for a, b in zip(plain, last, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2)


def test_a_saved_state_goes_on_where_it_was():
    whole, _ = train(muon, convolutions(), steps=4)
    module = convolutions()
    _, optimiser = train(muon, module, steps=4)
    other = convolutions(1)
    other.load_state_dict(module.state_dict())
    resumed = muon(other)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    x = torch.randn(4, 6, 5, 5)
    for net, steps in ((module, optimiser), (other, resumed)):
        steps.zero_grad()
        net(x).square().mean().backward()
        steps.step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(module.parameters(), whole, strict=True))


def test_a_parameter_without_a_gradient_stays():
    module = convolutions()
    optimiser = muon(module)
    module[0](torch.randn(1, 6, 5, 5)).mean().backward()
    still = module[2].weight.clone()
    optimiser.step()
    assert torch.equal(module[2].weight, still)
