"""Maps of patches: how many patches are in memory at once, and that it does not matter."""

import pytest
import torch

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
    monkeypatch.setattr(patch_map, "_PIECE", 7)
    with torch.no_grad():
        torch.testing.assert_close(model(x, **masks), whole)
    places = torch.stack([*masks.values(), torch.ones(2, 5, 6, dtype=torch.bool)]).all(0)
    assert (sum(shown), max(shown)) == (int(places.sum()), 7)
    shown.clear()
    with torch.no_grad():
        assert not model(x, valid=torch.zeros(2, 5, 6, dtype=torch.bool)).any()
    assert not shown
