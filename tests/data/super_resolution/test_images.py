"""Images that are not what they seem: kinds that cannot be read, corrupt ones, transparent ones, bombs."""

import struct
import zlib
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError, create_model
from geomoe.data.images import read_image, read_picture, sift
from geomoe.evaluation.calibrate import calibrate
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.models import LoadedModel
from geomoe.models.weights import Card, save
from geomoe.tasks.super_resolution_data import SuperResolutionData
from tests.scenes import pixels, write_scene


def png(path, width, height, depth=8, kind=2):
    """All zeros: as many pixels as one likes in few bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    samples = {0: 1, 2: 3, 6: 4}[kind]
    packed = zlib.compressobj(9)
    row = bytes(1 + width * samples * depth // 8)
    data = b"".join([*(packed.compress(row) for _ in range(height)), packed.flush()])
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def images(root, count, side=32):
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / f"{i:02}.png")
    return root


def data(root, **options):
    options = {"scale": 2, "patch_size": 8, "batch_size": 2, "steps_per_epoch": 1, **options}
    return SuperResolutionData(str(root), **options)


@pytest.mark.parametrize("kind", [0, 2, 6])
def test_a_png_of_sixteen_bits_says_what_to_do(tmp_path, kind):
    """Pillow reads those with colours as 8 bits without a word."""
    path = png(tmp_path / "deep.png", 20, 20, 16, kind)
    with pytest.raises(GeomoeError, match=r"deep.png has 16 bits a band.* gdal_translate deep.png deep.tif"):
        read_image(path)


@pytest.mark.parametrize("mode", ["CMYK", "F"])
def test_other_kinds_of_images_are_named(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.tif")
    Image.new(mode, (20, 20)).save(path)
    with pytest.raises(
        GeomoeError, match=r"of the kind CMYK; expected grey or RGB of 8 bits|1 bands of data"
    ):
        read_image(path)
    with pytest.raises(GeomoeError, match="is no GeoTIFF, of which alone 4 bands are read"):
        read_image(png(tmp_path / "three.png", 20, 20), bands=4)


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    bomb = png(tmp_path / "bomb.png", 12_000, 12_000)
    assert bomb.stat().st_size < 2**19
    images(tmp_path, 2)
    monkeypatch.setattr(Image.Image, "convert", None)
    with pytest.raises(GeomoeError, match=r"bomb.png has 12000 x 12000 pixels, more than the 67,108,864"):
        read_image(bomb)
    monkeypatch.undo()
    with pytest.raises(GeomoeError, match=r"1 of 3 cannot be used: .*bomb.png has 12000 x 12000 pixels"):
        data(tmp_path).setup()
    bomb.unlink()
    with pytest.raises(GeomoeError, match=r"2 of 2 cannot be used: .*00.png has 32 x 32 pixels"):
        data(tmp_path, max_pixels=999).setup()
    write_scene(tmp_path / "s.tif", pixels(3, 32, 40, "uint16"))
    with pytest.raises(GeomoeError, match=r"s.tif has 40 x 32 pixels, more than the 999"):
        read_picture(tmp_path / "s.tif", max_pixels=999)


@pytest.fixture
def corrupt(tmp_path):
    """Twelve images, of which three cannot be read."""
    root = images(tmp_path / "images", 12)
    (root / "03.png").write_bytes((root / "03.png").read_bytes()[:900])
    (root / "05.png").write_bytes(b"no image")
    (root / "07.png").write_bytes(b"")
    return root


def test_all_corrupt_images_are_named_or_left_out(corrupt):
    with pytest.raises(GeomoeError) as error:
        data(corrupt).setup()
    assert all(f"{name}.png" in str(error.value) for name in ("03", "05", "07"))
    assert "3 of 12 cannot be used" in str(error.value)
    assert "--skip-corrupt" in str(error.value)
    with pytest.warns(
        UserWarning, match=r"left out, 3 of 12 cannot be used: .*03.png.* \| .*05.png.* \| .*07.png"
    ):
        (rest := data(corrupt, skip_corrupt=True)).setup()
    assert len(rest._train) == 8
    assert rest.describe()["left_out"] == "3 images that could not be read"
    with pytest.raises(GeomoeError, match="2 of 2 cannot be used"):
        sift("ab", lambda x: read_picture(corrupt / "05.png"), True, print)


def test_corrupt_images_are_named_before_one_is_scored_or_left_out(corrupt):
    model = create_model("edsr", scale=2, width=4, blocks=1).eval()
    loaded = LoadedModel("tiny", model, Card("edsr", {}, "unit", {}, "", {}, "", {}, "", "", "", "hash"))
    done = []
    with pytest.raises(GeomoeError, match=r"3 of 12 cannot be used: .*03.png.*05.png.*07.png"):
        evaluate(loaded, corrupt, device="cpu", progress=lambda *n: done.append(n))
    assert not done
    found = evaluate(loaded, corrupt, device="cpu", skip_corrupt=True, say=done.append)
    assert found.overall.items == 9
    assert found.scored == "all 9 images of a folder, without 3 that cannot be read"
    assert len(done) == 1
    for name in ("03", "05", "07"):
        (corrupt / f"{name}.png").unlink()
    rest = evaluate(loaded, corrupt, device="cpu")
    assert rest.overall == found.overall


def test_corrupt_images_are_named_before_weights_are_calibrated(tmp_path):
    root = images(tmp_path / "images", 24)
    for name in ("02", "11"):
        (root / f"{name}.png").write_bytes(b"no image")
    model = create_model("edsr", scale=2, width=4, blocks=1)
    config = asdict(model.config)
    save(
        tmp_path / "w.safetensors",
        model,
        Card("edsr", config, "unit", {}, "bilinear", {}, "", {}, "", "", ""),
    )
    with pytest.raises(GeomoeError, match=r"2 of 24 cannot be used: .*02.png.*11.png"):
        calibrate(tmp_path / "w.safetensors", tmp_path / "c.safetensors", root)


def test_what_is_transparent_is_not_learned_from(tmp_path):
    images(tmp_path, 2)
    rgba = np.full((64, 64, 4), 50, np.uint8)
    rgba[:, :40] = (255, 0, 255, 0)
    Image.fromarray(rgba).save(tmp_path / "00.png")
    with pytest.warns(UserWarning, match=r"1 of 2 images, first 00.png: there are transparent or invalid"):
        (learned := data(tmp_path)).setup()
    assert {tuple(high.shape) for _, high in learned._train.pairs} == {(3, 16, 16)}
    assert all((high == 50).all() for _, high in learned._train.pairs)
    opaque = np.full((64, 64, 4), 255, np.uint8)
    Image.fromarray(opaque).save(tmp_path / "00.png")
    (learned := data(tmp_path)).setup()
    assert learned._train.pairs[0][1].shape == (3, 64, 64)


def test_nodata_is_not_learned_from(tmp_path):
    scene = pixels(3, 40, 64, "uint16", seed=1)
    scene[:, :20, :20] = 0
    for name in "ab":
        write_scene(tmp_path / f"{name}.tif", scene, nodata=0)
    with pytest.warns(UserWarning, match="2 of 2 images, .*: there are transparent or invalid"):
        (learned := data(tmp_path)).setup()
    # Of two rows of four, those that do not touch the corner of 20 x 20 pixels.
    assert len(learned._train) == 2 * 4 - 4


def test_bands_that_are_left_out_or_made_are_told(tmp_path):
    (tmp_path / "six").mkdir(), (tmp_path / "grey").mkdir()
    names = ("B02", "B03", "B04", "B08", "B11", "B12")
    for i in range(2):
        write_scene(tmp_path / "six" / f"{i}.tif", pixels(6, 32, 32, "uint16", seed=i), names=names)
        Image.new("L", (32, 32), 9).save(tmp_path / "grey" / f"{i}.png")
    with pytest.warns(UserWarning, match=r"2 of 2 images, first 0.tif: bands left out: .*B08.*B11.*B12"):
        (first := data(tmp_path / "six")).setup()
    (named := data(tmp_path / "six", bands="B04,B03,B02")).setup()
    assert named.bands == 3
    assert torch.equal(named._train.pairs[0][1], first._train.pairs[0][1])  # red first, as models are shown
    (other := data(tmp_path / "six", bands="B12,B11")).setup()
    assert torch.equal(other._train.pairs[0][1], read_picture(tmp_path / "six" / "0.tif", 2, "6,5").data)
    with pytest.raises(GeomoeError, match="no band 'B99'"):
        data(tmp_path / "six", bands="B99").setup()
    with pytest.warns(UserWarning, match=r"2 of 2 images, first 0.png: one band, taken three times"):
        data(tmp_path / "grey").setup()
    with pytest.raises(GeomoeError, match=r"0.png has no names of bands"):
        data(tmp_path / "grey", bands="red,green,blue").setup()
