"""A scene of bands from several files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.pipeline import upscale
from geomoe.raster import select_bands
from geomoe.raster.formats.product import ProductBand, choose_bands
from geomoe.raster.formats.stack import open_stack
from tests.pipeline.fakes import nearest
from tests.products import write_item
from tests.scenes import UTM, pixels, write_scene

WHOLE = Window(0, 0, 20, 16)


def _part(
    path: Path, seed: int = 0, band: int = 1, said: dict[str, Any] | None = None, **options: Any
) -> ProductBand:
    """A part of a file that is written if it is not there."""
    if not path.exists():
        write_scene(path, pixels(band, 16, 20, options.pop("dtype", "uint16"), seed), **options)
    return ProductBand(path.stem, path, 10, band, **(said or {}))


def test_bands_are_read_from_their_files_in_any_order(tmp_path: Path) -> None:
    parts = [
        _part(tmp_path / "a.tif", 1),
        _part(tmp_path / "b.tif", 2, band=3),
        _part(tmp_path / "a.tif"),
    ]
    expected = np.stack([pixels(1, 16, 20, "uint16", 1)[0], pixels(3, 16, 20, "uint16", 2)[2]])
    with open_stack(tmp_path / "product", parts[:2]) as scene:
        assert (scene.count, scene.descriptions, scene.transform) == (2, ("a", "b"), UTM)
        assert scene.files == (tmp_path / "a.tif", tmp_path / "b.tif")
        for bands in ([1, 2], [2], [2, 1], [1, 2, 1]):
            data, valid = scene.read(Window(3, 2, 9, 7), bands)
            assert np.array_equal(data, expected[[b - 1 for b in bands], 2:9, 3:12])
            assert valid.all()


def test_declared_nodata_is_applied_where_the_file_has_none(tmp_path: Path) -> None:
    data = pixels(1, 16, 20, "uint16")
    data[0, :4], data[0, 4:6] = 0, 7
    parts = [
        _part(write_scene(tmp_path / "none.tif", data), said={"nodata": 0.0}),
        _part(write_scene(tmp_path / "own.tif", data, nodata=7), said={"nodata": 0.0}),
        _part(write_scene(tmp_path / "beyond.tif", data), said={"nodata": -9999.0}),
    ]
    with open_stack(tmp_path, parts) as scene:
        assert (scene.validity, scene.nodata) == ("nodata", 0)
        valid = scene.read(WHOLE, (1, 2, 3))[1]
    assert np.array_equal(valid, np.stack([data[0] != 0, data[0] != 7, np.ones((16, 20), dtype=bool)]))
    upscale_stack(tmp_path, parts)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.nodata == 0
        assert np.array_equal(out.read_masks()[:, ::2, ::2] > 0, valid)


def upscale_stack(folder: Path, parts: list[ProductBand]) -> None:
    """Through a model, as a STAC item's bands would go."""
    assets = {}
    for part in parts:
        band = {"name": part.name, "nodata": part.nodata}
        assets[part.name] = {"href": part.file.name, "bands": [band]}
    upscale(write_item(folder / "item.json", assets), folder / "out.tif", model=nearest(), scale=2)


def test_masks_and_alpha_bands_keep_working(tmp_path: Path) -> None:
    keep = np.ones((16, 20), dtype=bool)
    keep[3:8, 4:9] = False
    other = np.roll(keep, 5)
    masked = write_scene(tmp_path / "masked.tif", pixels(1, 16, 20, "uint8"), mask=keep)
    data = np.concatenate([pixels(3, 16, 20, "uint8", 1), other[None].astype(np.uint8) * 255])
    alpha = write_scene(tmp_path / "alpha.tif", data, photometric="RGB", alpha="YES")
    plain = write_scene(tmp_path / "plain.tif", pixels(1, 16, 20, "uint8"))
    parts = [ProductBand("m", masked, 10), ProductBand("a", alpha, 10, 2), ProductBand("p", plain, 10)]
    with open_stack(tmp_path, parts) as scene:
        assert (scene.validity, scene.data_bands, scene.alpha) == ("mask", (1, 2, 3), None)
        assert np.array_equal(scene.read(WHOLE, (3,))[1][0], np.ones_like(keep))
        assert np.array_equal(scene.read(WHOLE, (1, 2, 3))[1], np.stack([keep & other] * 3))
    upscale_stack(tmp_path, [_part(masked), _part(plain)])
    with rasterio.open(tmp_path / "out.tif") as out:
        assert np.array_equal(out.dataset_mask()[::2, ::2] > 0, keep)


def test_a_files_own_scale_wins_over_what_is_said_of_it(tmp_path: Path) -> None:
    with rasterio.open(write_scene(tmp_path / "own.tif", pixels(1, 16, 20, "uint16")), "r+") as file:
        file.scales, file.offsets, file.units = (0.5,), (3.0,), ("K",)
    said = {"scale": 1e-4, "offset": -0.1}
    parts = [_part(tmp_path / "own.tif", said=said), _part(tmp_path / "other.tif", said=said)]
    with open_stack(tmp_path, parts) as scene:
        assert (scene.scales, scene.offsets, scene.units) == ((0.5, 1e-4), (3.0, -0.1), ("K", None))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"transform": UTM * Affine.translation(1, 0)}, "transform"),
        ({"crs": "EPSG:32619"}, "CRS"),
        ({"dtype": "int16"}, "data type: uint16 and int16"),
    ],
)
def test_files_must_be_alike(tmp_path: Path, options: dict[str, Any], what: str) -> None:
    parts = [_part(tmp_path / "a.tif"), _part(tmp_path / "b.tif"), _part(tmp_path / "c.tif", **options)]
    with (
        pytest.raises(GeomoeError, match=rf"a\.tif and c\.tif differ in {what}"),
        open_stack(tmp_path, parts),
    ):
        pass
    write_scene(tmp_path / "b.tif", pixels(1, 8, 8, "uint16"))
    with (
        pytest.raises(GeomoeError, match=r"differ in size: \(20, 16\) and \(8, 8\)"),
        open_stack(tmp_path, parts),
    ):
        pass


def test_grids_that_are_rounded_differently_are_one(tmp_path: Path) -> None:
    moved = Affine(UTM.a, UTM.b, UTM.c + 1e-6, UTM.d, UTM.e, UTM.f)
    parts = [_part(tmp_path / "a.tif"), _part(tmp_path / "b.tif", transform=moved)]
    with open_stack(tmp_path, parts) as scene:
        assert scene.transform == UTM


def test_what_all_files_say_is_kept(tmp_path: Path) -> None:
    parts = [_part(tmp_path / "a.tif"), _part(tmp_path / "b.tif")]
    for part in parts:
        with rasterio.open(part.file, "r+") as file:
            file.update_tags(of="both", name=part.name)
            file.update_tags(1, band=part.name)
    with open_stack(tmp_path, parts) as scene:
        assert scene.tags["of"] == "both"
        assert "name" not in scene.tags
        assert [tags["band"] for tags in scene.band_tags] == ["a", "b"]


def test_choice_of_layers() -> None:
    def part(name: str, pixel: float, *aliases: str) -> ProductBand:
        return ProductBand(name, Path(name), pixel, aliases=aliases)

    parts = [
        part("B05", 20, "rededge"),
        part("B06", 20, "rededge"),
        part("red", 10),
        part("B4", 10, "B05"),
    ]

    def names(bands: object) -> list[str]:
        return [found.name for found in choose_bands("p", parts, bands)]  # type: ignore[arg-type]

    assert names(None) == names("1") == names([2, "B4"]) == ["red", "B4"]
    assert names("b05") == ["B4"]  # on the finest grid that has it, by whatever name
    assert names("B05,B06") == ["B05", "B06"]
    assert names("RED,red") == ["red"]  # that it stands twice is said later
    with pytest.raises(GeomoeError, match="may be any of B05, B06"):
        names("rededge")
    for bad, lacking in (("B8", "band B8;"), ("red,B8", "band B8;"), ("red,B06", "grid with red, B06;")):
        with pytest.raises(GeomoeError, match=f"p has no {lacking}"):
            names(bad)
    for empty in ("", " ,"):
        with pytest.raises(GeomoeError, match=r"p has no grid with ,? ?;"):
            names(empty)


def test_names_in_any_case_and_aliases_select_bands(tmp_path: Path) -> None:
    parts = [_part(tmp_path / "B04.tif", said={"aliases": ("B4", "red")}),
              _part(tmp_path / "red.tif", said={"aliases": ("B4",)})]  # fmt: skip
    with open_stack(tmp_path, parts) as scene:
        assert select_bands(scene, "RED,b04", 3) == (2, 1)  # a name before another's alias
        with pytest.raises(GeomoeError, match="2 bands are named"):
            select_bands(scene, "b4", 3)


def test_two_hundred_bands_come_through(tmp_path: Path) -> None:
    data = pixels(200, 64, 64, "uint16")
    src = write_scene(tmp_path / "src.tif", data, tiled=True, blockxsize=32, blockysize=32, nodata=0)
    upscale(src, tmp_path / "dst.tif", model=nearest(), scale=2, tile=64)
    with rasterio.open(tmp_path / "dst.tif") as out:
        assert out.count == 200
        assert np.array_equal(out.read()[:, ::2, ::2], data)
