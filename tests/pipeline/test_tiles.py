"""Tiles cover a scene once, with the context that the model asks for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomoe.errors import GeomoeError
from geomoe.models.contract import Tiling
from geomoe.pipeline.tiles import Tiles, tile_side

SIDES = st.integers(1, 70)


@given(
    width=SIDES, height=SIDES, multiple=st.integers(1, 9), tile=st.integers(1, 40), margin=st.integers(0, 12)
)
@settings(max_examples=150, deadline=None)
def test_every_pixel_belongs_to_one_core(
    width: int, height: int, multiple: int, tile: int, margin: int
) -> None:
    tiling = Tiling(multiple, multiple, margin)
    seen = np.zeros((height, width), dtype=int)
    for t in Tiles(width, height, tiling, tile):
        core, window = t.core, t.window
        seen[core.y : core.y + core.height, core.x : core.x + core.width] += 1
        assert window.x % multiple == window.y % multiple == 0
        assert 0 <= window.x <= core.x - min(margin, core.x)
        assert 0 <= window.y <= core.y - min(margin, core.y)
        assert min(width, core.x + core.width + margin) <= window.x + window.width <= width
        assert min(height, core.y + core.height + margin) <= window.y + window.height <= height
        whole = np.arange(height * width).reshape(height, width)
        shown = whole[window.y : window.y + window.height, window.x : window.x + window.width]
        assert np.array_equal(
            shown[t.inner], whole[core.y : core.y + core.height, core.x : core.x + core.width]
        )
    assert (seen == 1).all()


def test_tile_is_rounded_up_to_the_multiple() -> None:
    tiling = Tiling(8, 64, 8)
    assert [tile_side(tiling, t) for t in (None, 1, 8, 9, 64)] == [64, 8, 8, 16, 64]
    with pytest.raises(GeomoeError, match="1 or more"):
        tile_side(tiling, 0)
