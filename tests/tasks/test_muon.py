import copy

import pytest
import torch
from torch import nn

import geomoe
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.experts.rows import ModuleExperts
from geomoe.moe.routing.router import Router
from geomoe.tasks.muon import Muon, matrices, orthogonal
from tests.models.sizes import tiny


@pytest.mark.parametrize("shape", [(3, 16, 90), (2, 90, 16), (1, 20, 20)])
@pytest.mark.parametrize("half", [True, False])
def test_orthogonal_brings_all_singular_values_near_one_and_keeps_their_vectors(shape, half, monkeypatch):
    monkeypatch.setattr("geomoe.tasks.muon.has_bfloat16", lambda device: half)
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spread = torch.linspace(0.05, 1, min(shape[1:]))
    found = orthogonal(u * spread @ v)
    assert found.dtype == torch.float32
    rounded = torch.equal(found, found.bfloat16().float())
    assert rounded == half
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.4
    inside = u.mT @ found @ v.mT
    assert (inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))).abs().max() < 0.15


@pytest.mark.parametrize("name", geomoe.list_models("image"))
def test_matrices_are_those_of_the_blocks_and_no_other(name):
    model = tiny(name)
    found = {id(p) for p in matrices(model)}
    assert found
    names = [n for n, p in model.named_parameters() if id(p) in found]
    assert not [n for n in names if n.split(".")[0] in ("shallow", "deep", "last", "head", "upsample")]
    apart = [m for n, m in model.named_modules() if isinstance(m, Router | ExpertBank) or n.endswith(".bias")]
    assert not found & {id(p) for m in apart for p in m.parameters()}


def test_experts_that_are_modules_are_no_matrices():
    bank = ModuleExperts([nn.Linear(4, 4), nn.Linear(4, 4)])
    model = nn.ModuleDict(
        {"blocks": nn.ModuleList([nn.ModuleDict({"experts": bank, "up": nn.Linear(4, 4)})])}
    )
    assert [p is model["blocks"][0]["up"].weight for p in matrices(model)] == [True]


def test_a_model_without_blocks_is_refused():
    with pytest.raises(geomoe.GeomoeError, match="no blocks"):
        matrices(nn.Sequential(nn.Linear(3, 3)))


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


def alike(seed=0):
    """Two convolutions of one shape, and a linear layer."""
    torch.manual_seed(seed)
    conv = [nn.Conv2d(6, 6, 3, padding=1) for _ in range(2)]
    return nn.Sequential(conv[0], nn.ReLU(), conv[1], nn.Flatten(2), nn.Linear(25, 25))


def test_steps_are_those_of_the_definition():
    """Nesterov's momentum, made orthogonal, times 0.2 sqrt of the larger side, downhill."""
    module, reference = alike(), alike()
    chosen = [module[0].weight, module[2].weight, module[4].weight]
    optimiser = Muon(module.parameters(), chosen, 1e-2)
    theirs = [reference[0].weight, reference[2].weight, reference[4].weight]
    momenta = [torch.zeros_like(w) for w in theirs]
    others = [p for p in reference.parameters() if p.dim() == 1]
    adam = torch.optim.Adam(others, 1e-2, (0.9, 0.99))
    for step in range(3):
        torch.manual_seed(step)
        x, y = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 25)
        for net in (module, reference):
            net.zero_grad()
            (net(x) - y).square().mean().backward()
        optimiser.step()
        adam.step()
        with torch.no_grad():
            for w, m in zip(theirs, momenta, strict=True):
                m.copy_(0.95 * m + 0.05 * w.grad)
                nesterov = (0.95 * m + 0.05 * w.grad).flatten(1)
                u = orthogonal(nesterov[None])[0]
                w -= 1e-2 * 0.2 * max(u.shape) ** 0.5 * u.view_as(w)
        for mine, wanted in zip(module.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(mine, wanted, atol=4e-4, rtol=0)  # 2 % of a step: bfloat16


def test_a_closure_is_called_and_its_loss_given():
    module = convolutions()
    optimiser, x = muon(module), torch.randn(2, 6, 5, 5)

    def loss():
        optimiser.zero_grad()
        value = module(x).square().mean()
        value.backward()
        return value

    first = optimiser.step(loss)
    for _ in range(10):
        last = optimiser.step(loss)
    assert last < 0.7 * first


def test_the_memory_format_of_weights_changes_nothing():
    plain, _ = train(muon, convolutions())
    last, _ = train(muon, convolutions().to(memory_format=torch.channels_last))
    for a, b in zip(plain, last, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2)


def test_a_saved_state_goes_on_where_it_was():
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


def test_a_parameter_without_a_gradient_stays():
    module = convolutions()
    optimiser = muon(module)
    module[0](torch.randn(1, 6, 5, 5)).mean().backward()
    still = module[2].weight.clone()
    optimiser.step()
    assert torch.equal(module[2].weight, still)
