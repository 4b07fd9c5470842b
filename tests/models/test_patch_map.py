"""Maps of patches: how many patches are in memory at once, and that it does not matter."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geomoe.models import patch_map

from .sizes import tiny


@pytest.mark.parametrize("name", ["hyper_trans_xnet", "mixture_rs"])
@pytest.mark.parametrize("given", [(), ("valid",), ("valid", "wanted")])
def test_patches_are_shown_in_pieces_that_do_not_matter(name, given, monkeypatch):
    torch.manual_seed(0)
    model = tiny(name).eval()
    x = torch.rand(2, model.contract.bands, 5, 6)
    masks = {mask: torch.rand(2, 5, 6) < 0.7 for mask in given}
    with torch.enable_grad():
        whole = model(x, **masks)
    shown, label = [], model.label

    def counted(patches, *more):
        shown.append(len(patches))
        return label(patches, *more)

    monkeypatch.setattr(model, "label", counted)
    monkeypatch.setattr(patch_map, "_PIECE_ON_CPU", 7)
    with torch.no_grad():
        torch.testing.assert_close(model(x, **masks), whole)
    places = torch.stack([*masks.values(), torch.ones(2, 5, 6, dtype=torch.bool)]).all(0)
    assert (sum(shown), max(shown)) == (int(places.sum()), 7)
    shown.clear()
    with torch.no_grad():
        assert not model(x, valid=torch.zeros(2, 5, 6, dtype=torch.bool)).any()
    assert not shown


def test_patches_of_some_pixels_are_those_of_all_and_give_back_as_much():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    places = torch.rand(2, 5, 6) < 0.5
    some, of_all = patch_map.patches_at(x, 3, places), patch_map.patches_at(x, 3)[places.flatten()]
    assert torch.equal(some, of_all)
    weights = torch.rand_like(some)
    given_back, expected = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (some, of_all))
    torch.testing.assert_close(given_back, expected)


class _Largest(TorchDispatchMode):
    """Remembers the largest number of values that an operation gave."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(y.numel() for y in tree_leaves(out) if isinstance(y, torch.Tensor))])
        return out


def test_learning_from_some_pixels_does_not_take_memory_for_the_patches_of_all():
    x, places = torch.rand(2, 3, 16, 16, requires_grad=True), torch.zeros(2, 16, 16, dtype=torch.bool)
    places[:, 8, 8] = True
    patches = patch_map.patches_at(x, 5, places)
    with _Largest() as largest:
        patches.sum().backward()
    assert largest.numel == 2 * 3 * 20 * 20  # the image and its margin
