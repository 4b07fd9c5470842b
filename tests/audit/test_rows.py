"""One rule cuts samples into blocks where there are too few, and rows and answers alike."""

import pytest
import torch

from geomoe.audit.rows import Cells, blocks, blocks_a_side, clustered_by
from tests.audit.made import plan_of, subject


def first(x):
    return [plan_of(torch.zeros(x[:, 0].numel()).long(), 2, (len(x), *x.shape[2:]))]


@pytest.mark.parametrize(("number", "side"), [(1, 6), (2, 5), (4, 3), (9, 2), (10, 1), (40, 1)])
def test_a_few_samples_are_cut_into_thirty_six_blocks_or_more(number, side):
    made = subject(torch.rand(number, 3, 12, 12), first)
    assert blocks_a_side(made) == side
    assert side == 1 or number * side**2 >= 36
    assert clustered_by(made) == ("samples" if side == 1 else f"blocks of samples ({side} x {side} in each)")


@pytest.mark.parametrize(("height", "width", "side"), [(12, 18, 6), (12, 12, 1), (12, 15, 3)])
def test_rows_are_of_the_blocks_that_answers_are_cut_into(height, width, side):
    image = torch.rand(2, 3, height, width)
    [plan] = first(image)
    place = Cells(plan, 1, height, width)
    of_pixels = place.on_image(place.clusters(5, side))[:, None]  # [B, 1, H, W]
    batch = {"image": image, "label": torch.tensor([0, 1]), "mask": of_pixels[:, 0]}
    cut = list(blocks(of_pixels, batch, side))
    assert len(cut) == side**2
    for number, (answer, part) in enumerate(cut):
        for sample in (0, 1):
            found = set(answer[sample].flatten().tolist())
            assert found == {(5 + sample) * side**2 + number}
        assert torch.equal(part["mask"], answer[:, 0])
        assert part["label"].tolist() == [0, 1]
        assert part["image"].shape[-2:] == answer.shape[-2:]


def test_answers_for_whole_samples_are_not_cut():
    batch = {"image": torch.rand(2, 3, 12, 12)}
    [(answer, same)] = blocks(torch.rand(2, 4), batch, 6)
    assert answer.shape == (2, 4)
    assert same is batch
