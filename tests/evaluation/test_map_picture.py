"""Class maps as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomoe.errors import GeomoeError
from geomoe.evaluation import map_picture
from geomoe.pipeline import predict
from tests.models.test_map_models import CLASSES, COLOURS
from tests.pipeline.test_predict import BANDS, NAMES, weights, whole
from tests.scenes import pixels, write_scene


def test_a_map_is_drawn_in_its_colours_with_the_classes_that_are_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = weights(tmp_path / "land.safetensors"), pixels(BANDS, 40, 60, "uint16")
    data[data == 0] = 1
    data[:, :10] = 0
    write_scene(tmp_path / "s.tif", data, names=NAMES, nodata=0)
    predict(tmp_path / "s.tif", tmp_path / "m.tif", model=model, device="cpu")
    figure = map_picture.figure_of_map(tmp_path / "m.tif")
    [axes], [legend] = figure.axes, figure.legends
    drawn = np.asarray(axes.images[0].get_array())
    best = whole(model, data, data[0] > 0).argmax(0)
    hues = np.array([[*bytes.fromhex(colour[1:])] for colour in COLOURS], np.uint8)
    assert np.array_equal(drawn[10:], hues[best][10:])
    assert (drawn[:10] == 255).all()
    shares = np.bincount(best[10:].ravel(), minlength=3) / best[10:].size
    wanted = [f"{name}, {share:.1%}" for name, share in zip(CLASSES, shares, strict=True) if share]
    assert [text.get_text() for text in legend.get_texts()] == wanted
    monkeypatch.setattr(map_picture, "_SIDE", 2)
    small = map_picture.figure_of_map(tmp_path / "m.tif")
    assert small.axes[0].images[0].get_array().shape == (2, 2, 3)
    assert [text.get_text() for text in small.legends[0].get_texts()] == wanted, "of all pixels"
    monkeypatch.setattr(map_picture, "_SIDE", 25)
    assert map_picture.figure_of_map(tmp_path / "m.tif").axes[0].images[0].get_array().shape == (14, 20, 3)
    map_picture.draw_map(tmp_path / "m.tif", tmp_path / "m.png")
    assert Image.open(tmp_path / "m.png").width > Image.open(tmp_path / "m.png").height


def test_what_is_no_class_map_is_refused(tmp_path: Path) -> None:
    write_scene(tmp_path / "s.tif", pixels(1, 8, 8, "uint8"))
    with pytest.raises(GeomoeError, match=r"s\.tif is not a map of classes"):
        map_picture.draw_map(tmp_path / "s.tif", tmp_path / "s.png")
    assert not (tmp_path / "s.png").exists()
