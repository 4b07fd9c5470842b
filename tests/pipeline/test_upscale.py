"""What a scene keeps on its way through a model."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geomoe.errors import GeomoeError
from geomoe.pipeline import Request, describe_scene, upscale, verify
from geomoe.pipeline.job import is_made
from geomoe.pipeline.runner import band_groups
from tests.pipeline.fakes import FakeUpscaler, convolutional, nearest
from tests.scenes import left_over, pixels, write_scene

SENTINEL2 = Path(__file__).parents[2] / "examples" / "data" / "sentinel2_l1c.tif"
ROTATED = Affine.translation(4e5, 5e6) * Affine.rotation(20) * Affine.scale(10, -20)


def _grown(array: np.ndarray, scale: int) -> np.ndarray:
    return array.repeat(scale, -2).repeat(scale, -1)


@pytest.mark.parametrize(
    ("dtype", "bands", "scale"),
    [(*pair, 2) for pair in itertools.product(["uint8", "uint16", "int16", "float32"], [1, 3, 4, 7])]
    + [("uint16", 3, 3), ("uint16", 3, 4), ("uint8", 3, 8)]
    + [(dtype, 4, 2) for dtype in ("int8", "uint32", "int32", "float64")],
)
def test_values_come_out_in_their_type_and_range(
    src: Path, dst: Path, dtype: str, bands: int, scale: int
) -> None:
    data = pixels(bands, 37, 45, dtype)
    write_scene(src, data, transform=ROTATED, names=[f"b{i}" for i in range(bands)])
    upscale(src, dst, model=nearest(scale), scale=scale)
    with rasterio.open(dst) as out:
        got = out.read()
        assert (out.dtypes[0], out.nodata) == (dtype, None)
        assert out.descriptions == tuple(f"b{i}" for i in range(bands))
        assert tuple(out.transform) == pytest.approx(tuple(ROTATED * Affine.scale(1 / scale)), rel=1e-15)
        assert out.dataset_mask().all()
        assert out.tags()["GEOMOE_WEIGHTS"] == "0123abcd"
    if dtype.startswith("float"):
        assert got == pytest.approx(_grown(data, scale), rel=1e-6, abs=1e-5)
    elif dtype.endswith("32"):  # float32, in which models compute, has 24 bits
        assert np.abs(got.astype(float) - _grown(data, scale)).max() <= 2**9
    else:
        assert np.array_equal(got, _grown(data, scale))


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint16", 0), ("uint8", 255), ("int16", -32768), ("float32", 0)]
)
def test_undeclared_fill_leaves_as_it_came_and_nowhere_else(
    src: Path, dst: Path, dtype: str, value: int
) -> None:
    data = pixels(3, 60, 70, dtype)
    fill = np.add.outer(np.arange(60), np.arange(70)) < 60
    data[:, fill] = value
    data[0, 50, 50:60] = value  # measured: the other bands are not of that value
    bled, model = dst.with_name("declared.tif"), convolutional(2)
    report = upscale(write_scene(src, data), dst, model=model, scale=2)
    assert [note for note in report.plan.notes if "taken for pixels without data" in note] == [
        f"{fill.mean():.1%} of pixels are {value} in all bands, many of them in one area at the border: "
        "taken for pixels without data; if they were measured, give --nodata none"
    ]
    with rasterio.open(dst) as out:
        got = out.read()
        assert out.nodata == value
    assert (got[:, _grown(fill, 2)] == value).all()
    assert (got[:, ~_grown(fill, 2)] != value).all()
    # As of a scene whose fill is something else altogether: nothing of its value is in the neighbours.
    other = np.where(fill, data.dtype.type(1), data)
    upscale(write_scene(src, other, mask=~fill), bled, model=model, scale=2)
    with rasterio.open(bled) as out:
        same = out.read()[:, ~_grown(fill, 2)] == got[:, ~_grown(fill, 2)]
    assert same.mean() > 0.99  # but for single pixels that keep off nodata
    item = json.loads(dst.with_name("dst.stac.json").read_text())["properties"]
    assert item["geomoe:configuration"]["nodata"] == {"said": None, "value": value, "by": "area"}
    assert f"Pixels that are {value} in all of them were taken to hold no data" in item["processing:lineage"]
    found = verify(dst)
    assert (found.faults, found.facts["nodata"]) == ((), f"{value}, which all bands of a large area have")


def test_the_user_says_what_is_nodata_or_that_nothing_is(src: Path, dst: Path) -> None:
    data = pixels(2, 40, 50, "uint16")
    data[:, :20] = 0
    write_scene(src, data)
    upscale(src, dst, model=nearest(2), scale=2, nodata="none")
    with rasterio.open(dst) as out:
        assert out.nodata is None
        assert np.array_equal(out.read(), _grown(data, 2))
    assert "user" in json.loads(dst.with_name("dst.stac.json").read_text())["properties"][
        "geomoe:configuration"]["nodata"]["by"]  # fmt: skip
    assert verify(dst).faults == ()
    request = Request(src, dst, model=nearest(2), scale=2)
    assert not is_made(request)
    assert is_made(replace(request, nodata="none"))
    upscale(src, dst, model=nearest(2), scale=2, nodata=0.0, overwrite=True)
    with rasterio.open(dst) as out:
        assert (out.nodata, out.read_masks(1).mean()) == (0, 127.5)
    facts = describe_scene(src, nodata=0.0)
    assert facts["validity"] == "from --nodata, band by band (nodata 0); 50.0% of pixels valid"
    facts = describe_scene(src)
    assert facts["validity"] == (
        "undeclared, where all bands have one value (nodata 0); 50.0% of pixels valid"
    )
    assert "50.0% of pixels are 0 in all bands" in facts["decided"]


def test_an_integer_of_32_bits_that_fits_24_comes_back_and_so_does_its_nodata(src: Path, dst: Path) -> None:
    data = pixels(3, 24, 20, "uint16").astype(np.int32) * 100
    data[:, 3:9, 4:9] = 2**31 - 1
    upscale(write_scene(src, data, nodata=2**31 - 1), dst, model=nearest(2), scale=2)
    with rasterio.open(dst) as out:
        assert out.nodata == 2**31 - 1
        assert np.array_equal(out.read(), _grown(data, 2))


def test_float64_is_taken_where_float32_has_its_range(src: Path, dst: Path) -> None:
    data = pixels(2, 24, 20, "float64")
    data[0, 3, 4] = -1e300
    with pytest.raises(GeomoeError, match=r"holds -1e\+300, beyond the range of float32") as refused:
        upscale(write_scene(src, data), dst, model=nearest(2), scale=2)
    assert "\n" not in str(refused.value)
    assert left_over(src.parent) == ["src.tif"]
    upscale(write_scene(src, data, nodata=-1e300), dst, model=nearest(2), scale=2)
    with rasterio.open(dst) as out:
        assert (out.dtypes, out.nodata) == (("float64",) * 2, -1e300)
        assert np.array_equal(out.read(1) == -1e300, _grown(data[0] == -1e300, 2))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_tiny_scenes(src: Path, dst: Path, size: tuple[int, int]) -> None:
    data = pixels(2, *size, "uint16")
    write_scene(src, data)
    upscale(src, dst, model=nearest(4), scale=4, experts=dst.with_name("experts.tif"))
    with rasterio.open(dst) as out:
        assert np.array_equal(out.read(), _grown(data, 4))


def test_tiles_leave_no_seam_and_their_order_no_trace(src: Path, dst: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(4, 70, 90, "uint16"), nodata=0)
    model = convolutional()
    upscale(src, dst, model=model, scale=2, tile=16)
    shuffled = np.random.default_rng(0).permutation(30).tolist()
    upscale(src, tmp_path / "shuffled.tif", model=model, scale=2, tile=16, order=shuffled)
    assert dst.read_bytes() == (tmp_path / "shuffled.tif").read_bytes()
    upscale(src, tmp_path / "whole.tif", model=model, scale=2, tile=96)
    with rasterio.open(dst) as tiled, rasterio.open(tmp_path / "whole.tif") as whole:
        difference = np.abs(tiled.read().astype(int) - whole.read())
        # Only a rounding on the edge of two integers may differ between two sizes of convolution.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


@pytest.mark.slow
def test_the_margin_of_the_shipped_weights_hides_their_tiles(dst: Path, tmp_path: Path) -> None:
    """They look further than their margin, if only a little: what is left of it must not show."""
    upscale(SENTINEL2, dst, tile=32)
    upscale(SENTINEL2, tmp_path / "whole.tif", tile=256)
    with rasterio.open(dst) as tiled, rasterio.open(tmp_path / "whole.tif") as whole:
        image = whole.read().astype(float)
        difference = tiled.read() - image
    step = [np.abs(np.diff(a, axis=2)).mean(axis=(0, 1)) for a in (difference, image)]
    at_lines = np.arange(127, len(step[0]), 128)
    assert step[0][at_lines].mean() < 0.03 * step[1].mean()
    assert np.abs(difference).mean() < 1e-3 * image.std()


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha", "nan"])
def test_invalid_stays_invalid_and_does_not_bleed(src: Path, dst: Path, tmp_path: Path, kind: str) -> None:
    keep = np.random.default_rng(1).random((40, 50)) > 0.3
    keep[:20, :20] = False  # a tile with nothing in it
    dtype = "float32" if kind == "nan" else "uint16"
    data = pixels(3, 40, 50, dtype)
    outputs = []
    for number, blank in enumerate([np.nan, np.inf] if kind == "nan" else [0, 65535]):
        filled = np.where(keep, data, np.array(blank, dtype=dtype))
        if kind == "alpha":
            banded = np.concatenate([filled, keep[None] * np.uint16(65535)])
            write_scene(src, banded, photometric="RGB", alpha="YES")
        else:
            write_scene(
                src, filled, nodata=blank if kind == "nodata" else None, mask=keep if kind == "mask" else None
            )
        target = tmp_path / f"{number}.tif"
        report = upscale(src, target, model=convolutional(), scale=2)
        assert report.skipped == 1
        with rasterio.open(target) as out:
            assert out.count == 3
            assert np.array_equal(out.dataset_mask() > 0, _grown(keep, 2))
            outputs.append(out.read()[:, _grown(keep, 2)])
            assert np.isfinite(outputs[-1]).all()
    assert np.array_equal(outputs[0], outputs[1])


def test_nodata_in_one_band_only_touches_that_band(src: Path, dst: Path) -> None:
    data = pixels(3, 24, 24, "uint8")
    data[1, 5:9, 5:9] = 0
    write_scene(src, data, nodata=0)
    upscale(src, dst, model=nearest(), scale=2)
    with rasterio.open(dst) as out:
        assert np.array_equal(out.read(), _grown(data, 2))
        assert out.dataset_mask().all()


def test_valid_pixels_never_become_nodata(src: Path, dst: Path) -> None:
    """Next to black, a sharpening model goes below black; black is nodata here."""
    data = np.where(np.indices((3, 24, 24)).sum(0) % 4 < 2, 1, 250).astype(np.uint8)
    write_scene(src, data, nodata=0)
    upscale(src, dst, model=convolutional(), scale=2)
    with rasterio.open(dst) as out:
        assert out.read().min() >= 1


def test_chosen_bands_in_the_order_given(src: Path, dst: Path) -> None:
    data = pixels(4, 20, 20, "uint16")
    write_scene(src, data, names=["B04", "B03", "B02", "B08"])
    upscale(src, dst, model=nearest(), scale=2, bands="b08,1")
    with rasterio.open(dst) as out:
        assert out.descriptions == ("B08", "B04")
        assert np.array_equal(out.read(), _grown(data[[3, 0]], 2))


def test_bands_go_through_in_groups_and_copies_are_averaged(src: Path, dst: Path) -> None:
    class Tilting(torch.nn.Module):
        """Adds 0, 3 and 6 steps of uint8 to its three channels."""

        def forward(self, x: torch.Tensor, trace: object = None) -> torch.Tensor:
            return torch.nn.functional.interpolate(
                x + torch.tensor([0, 3, 6.0])[None, :, None, None] / 255, scale_factor=2
            )

    data = pixels(5, 8, 8, "uint8") // 2
    write_scene(src, data)
    upscale(src, dst, model=FakeUpscaler(Tilting(), nearest().contract), scale=2)
    assert band_groups([1, 2, 3, 4, 5], 3) == [(1, 2, 3), (4, 5, 5)]
    with rasterio.open(dst) as out:
        added = out.read().astype(int) - _grown(data, 2)
    # The fifth band went through as second and third channel: (3 + 6) / 2, half to even.
    assert [np.unique(a).tolist() for a in added[:4]] == [[0], [3], [6], [0]]
    assert set(np.unique(added[4])) <= {4, 5}


def test_expert_map(src: Path, dst: Path, tmp_path: Path) -> None:
    data = pixels(4, 37, 45, "uint16")
    data[:, :20, :20] = 0
    data[1, 30] = 0
    write_scene(src, data, nodata=0, transform=ROTATED)
    report = upscale(src, dst, model=nearest(4), scale=4, experts=tmp_path / "experts.tif")
    assert report.experts == tmp_path / "experts.tif"
    with rasterio.open(src) as scene, rasterio.open(tmp_path / "experts.tif") as experts:
        assert (experts.width, experts.height, experts.dtypes) == (45, 37, ("uint8",) * 4)
        assert tuple(experts.transform) == pytest.approx(tuple(scene.transform), rel=1e-15)
        assert experts.crs == scene.crs
        assert experts.descriptions == ("group", "expert", "confidence", "entropy")
        assert (experts.nodata, experts.scales[2:]) == (0, (1 / 255, 1 / 255))
        group, member, confidence, entropy = experts.read()
        assert np.array_equal(experts.dataset_mask(), scene.dataset_mask())
        assert '"kernel_size": 3' in experts.tags()["GEOMOE_LEGEND"]
    valid = group > 0
    assert np.array_equal(valid, member > 0)
    assert np.array_equal(valid, confidence > 0)
    assert np.array_equal(valid, entropy > 0)
    # No belief in five experts whose first has this probability is less decided than that.
    first = np.clip(confidence[valid] / 255, 1e-6, 1 - 1e-6)
    most = -(first * np.log(first) + (1 - first) * np.log((1 - first) / 4)) / np.log(5)
    assert (entropy[valid] / 255 < most + 0.01).all()
    # Brighter pixels have later experts: (1, 1) (1, 2) (2, 1) (2, 2) (2, 3).
    place = np.where(group == 1, member, 2 + member)[:20, 20:]
    bright = data[0, :20, 20:]
    assert {1, 5} <= set(np.unique(place))
    assert all(bright[place == i].max() < bright[place == i + 1].min() for i in range(1, 5))


def test_progress_hears_of_every_tile_and_the_end(src: Path, dst: Path) -> None:
    heard: list[object] = []

    class Listener:
        def start(self, total: int, done: int, note: str) -> None:
            heard.append((total, done, note))

        def advance(self) -> None:
            heard.append("tile")

        def close(self) -> None:
            heard.append("end")

    write_scene(src, pixels(3, 20, 40, "uint8"))
    upscale(src, dst, model=nearest(), scale=2, progress=Listener())
    assert heard == [(6, 0, ""), *["tile"] * 6, "end"]


def test_overwrite_replaces_the_file(src: Path, dst: Path) -> None:
    write_scene(src, pixels(3, 20, 20, "uint8"))
    dst.write_text("old")
    upscale(src, dst, model=nearest(), scale=2, overwrite=True)
    with rasterio.open(dst) as out:
        assert out.width == 40
