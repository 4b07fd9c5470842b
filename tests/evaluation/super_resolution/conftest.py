"""Images that the benchmarks of these tests train and score."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 4)):
        (root / part).mkdir()
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize((48, 48), Image.Resampling.BICUBIC).save(root / part / f"{i}.png")
    return root
