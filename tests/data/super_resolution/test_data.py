import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.data.images import find_images, read_image, to_unit
from geomoe.data.super_resolution.degradation import (
    DEGRADATIONS,
    crop_to_multiple,
    get_degradation,
    interpolated,
)
from geomoe.data.super_resolution.pairs import ImagePairs, PatchStream, Share, degrade, mirror_to
from geomoe.data.ucmerced import ucmerced_files, ucmerced_split


def picture(path, size=(32, 32), seed=0, mode="RGB"):
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def test_the_split_is_the_stated_one():
    train, test = ucmerced_split("train"), ucmerced_split("test")
    assert (len(train), len(test)) == (1575, 525)
    assert not set(train) & set(test)
    classes = sorted({name.split("/")[0] for name in test})
    assert len(classes) == 21
    rng = np.random.default_rng(0)
    for name in classes:
        drawn = sorted(f"{name}/{name}{i:02d}.tif" for i in rng.permutation(100)[:25])
        assert drawn == sorted(entry for entry in test if entry.startswith(f"{name}/"))


def test_validation_is_cut_from_training():
    fit, validation = ucmerced_split("fit"), ucmerced_split("validation")
    assert len(validation) == 63
    assert len(fit) == 1512
    assert sorted(fit + validation) == sorted(ucmerced_split("train"))


@pytest.mark.parametrize("inside", ["", "Images", "UCMerced_LandUse/Images"])
def test_ucmerced_is_found_at_any_of_its_levels(tmp_path, inside):
    for name in ucmerced_split("validation"):
        (tmp_path / inside / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / inside / name).touch()
    (tmp_path / inside / "agricultural").mkdir(exist_ok=True)
    assert len(ucmerced_files(tmp_path, "validation")) == 63
    with pytest.raises(GeomoeError, match="525 of 525 images of UCMerced are missing"):
        ucmerced_files(tmp_path, "test")


def test_another_folder_is_not_taken_for_ucmerced(tmp_path):
    with pytest.raises(GeomoeError, match="UCMerced_LandUse"):
        ucmerced_files(tmp_path, "test")


def test_the_default_degradation_at_known_values():
    ramp = (2 * torch.arange(16.0)).view(1, 1, 1, 16).expand(1, 1, 16, 16) / 255
    small = get_degradation("bilinear")(ramp, 4) * 255
    # The kernel is symmetric about the centre of each cell (1.5, 5.5, ...): a ramp stays a ramp inside.
    torch.testing.assert_close(small[0, 0, 1, 1:3], torch.tensor([11.0, 19.0]))
    flat = torch.full((1, 3, 12, 12), 100 / 255)
    for name in ("bilinear", "bicubic", "bicubic_float", "bilinear_float", "bilinear_aliased", "average"):
        torch.testing.assert_close(get_degradation(name)(flat, 3), torch.full((1, 3, 4, 4), 100 / 255))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_average_is_of_what_the_pixel_covers(scale):
    x = torch.rand(1, 3, 5 * scale, 7 * scale, generator=torch.Generator().manual_seed(0))
    squares = x.reshape(1, 3, 5, scale, 7, scale).mean((3, 5))
    torch.testing.assert_close(get_degradation("average").unrounded()(x, scale), squares)


def test_degradations_differ_as_they_say():
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    made = {name: d(x, 4) for name, d in DEGRADATIONS.items()}
    rounded = {name for name, y in made.items() if torch.allclose(y * 255, (y * 255).round(), atol=1e-4)}
    assert set(made) - rounded == {"bicubic_float", "bilinear_float", "blind_float"}
    assert made["bilinear_aliased"].std() > made["bilinear"].std() + 0.05
    assert (made["bilinear"] - made["bilinear_float"]).abs().max() <= 0.5 / 255 + 1e-6


def test_odd_images_are_cut_not_stretched():
    x = torch.randint(0, 256, (3, 247, 257), dtype=torch.uint8)
    low, high = degrade(x, 4, get_degradation("bilinear"))
    assert low.shape == (3, 61, 64)
    assert high.shape == (3, 244, 256)
    assert torch.equal(high, x[:, :244, :256])
    assert torch.equal(crop_to_multiple(x, 4), high)


def test_bicubic_keeps_constants():
    flat = torch.full((1, 2, 5, 6), 0.3)
    torch.testing.assert_close(interpolated(flat, 4), torch.full((1, 2, 20, 24), 0.3))


@pytest.fixture
def pairs():
    g = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 40 + 4 * i, 48), dtype=torch.uint8, generator=g) for i in range(3)]
    return ImagePairs(images, 4, get_degradation("bilinear"))


def test_a_sample_depends_on_its_number_alone(pairs):
    a = PatchStream(pairs, 6, 4, seed=1, start=0, length=20)
    b = PatchStream(pairs, 6, 4, seed=1, start=10, length=10)
    for i in range(10):
        assert all(torch.equal(a[10 + i][key], b[i][key]) for key in ("image", "target"))
    assert not torch.equal(a[0]["image"], a[1]["image"])
    other = PatchStream(pairs, 6, 4, seed=2, start=0, length=1)
    assert not torch.equal(a[0]["image"], other[0]["image"])


def test_patches_match_and_are_turned_together(pairs):
    """Made small again, the high patch is the low one, but for its border."""
    stream = PatchStream(pairs, 8, 4, seed=0, start=0, length=16)
    for i in range(16):
        low, high = stream[i]["image"], stream[i]["target"]
        assert low.shape == (3, 8, 8)
        assert high.shape == (3, 32, 32)
        again = get_degradation("bilinear")(high[None], 4)[0]
        torch.testing.assert_close(again[:, 1:-1, 1:-1], low[:, 1:-1, 1:-1], atol=1.01 / 255, rtol=0)


def test_patches_begin_at_any_pixel_and_are_made_small_as_the_image_would_be():
    image = torch.randint(0, 256, (3, 48, 60), dtype=torch.uint8)
    bilinear = get_degradation("bilinear")
    pairs = ImagePairs([image], 4, bilinear)
    phases = set()
    for y, x in [(0, 0), (1, 2), (7, 3), (24, 36), (23, 35), (13, 30)]:
        whole, _ = degrade(image[:, y % 4 :, x % 4 :], 4, bilinear)
        expected = whole[:, y // 4 : y // 4 + 6, x // 4 : x // 4 + 6]
        assert torch.equal(pairs.made_small(image, y, x, 6, np.random.default_rng(0))[0], expected)
        phases.add((y % 4, x % 4))
    assert phases == {(0, 0), (1, 2), (3, 3)}


def test_without_augmentation_patches_lie_on_the_images_own_grid():
    image = torch.randint(0, 256, (3, 48, 60), dtype=torch.uint8)
    pairs = ImagePairs([image], 4, get_degradation("bilinear"))
    low = to_unit(pairs.pairs[0][0])
    windows = {low[:, y : y + 6, x : x + 6].numpy().tobytes() for y in range(7) for x in range(10)}
    stream = PatchStream(pairs, 6, 4, seed=0, start=0, length=20, augment=False)
    assert all(stream[i]["image"].numpy().tobytes() in windows for i in range(20))


def test_augmentation_turns_an_image_in_all_eight_ways(pairs):
    one = ImagePairs([torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)], 4, get_degradation("bilinear"))
    stream = PatchStream(one, 8, 4, seed=0, start=0, length=64)
    assert len({stream[i]["image"].numpy().tobytes() for i in range(64)}) == 8


def test_small_images_are_continued_by_mirroring():
    x = torch.arange(12, dtype=torch.uint8).view(1, 3, 4)
    y = mirror_to(x, 6)
    assert y.shape == (1, 6, 6)
    assert torch.equal(y[:, :3, :4], x)
    assert y[0, 0].tolist() == [0, 1, 2, 3, 2, 1]
    assert torch.equal(mirror_to(x, 3), x)


def test_a_patch_larger_than_an_image_is_refused(pairs):
    with pytest.raises(GeomoeError, match="patch_size=20"):
        PatchStream(pairs, 20, 4, 0, 0, 1)


def test_reading_images(tmp_path):
    rgb, grey = picture(tmp_path / "a" / "x.png"), picture(tmp_path / "b" / "y.tif", mode="L")
    assert find_images(tmp_path) == [rgb, grey]
    assert read_image(rgb).shape == (3, 32, 32)
    assert read_image(rgb).dtype == torch.uint8
    three = read_image(grey)
    assert torch.equal(three[0], three[2])
    assert read_image(rgb, bands=1).shape == (1, 32, 32)


def test_a_sixteen_bit_geotiff_is_read_as_floats(tmp_path):
    import rasterio

    data = np.random.default_rng(0).integers(300, 3000, (4, 20, 30), dtype=np.uint16)
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", width=30, height=20, count=4, dtype="uint16"
    ) as file:
        file.write(data)
    image = read_image(tmp_path / "s.tif", bands=4)
    assert image.shape == (4, 20, 30)
    assert image.dtype == torch.float32
    assert -0.1 < float(image.min()) < 0.1
    assert 0.9 < float(image.max()) < 1.1
    with pytest.raises(GeomoeError, match="4 bands"):
        read_image(tmp_path / "s.tif", bands=5)


@pytest.mark.parametrize("name", ["no.png", "no.tif"])
def test_a_text_file_is_not_an_image(tmp_path, name):
    (tmp_path / name).write_text("not an image\n")
    with pytest.raises(GeomoeError, match=name):
        read_image(tmp_path / name)


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(GeomoeError, match="holds no image"):
        find_images(tmp_path)
    with pytest.raises(GeomoeError, match="not a folder"):
        find_images(tmp_path / "none")


def test_processes_share_the_patches_of_one(pairs):
    """A batch of 2 in each of 3 processes holds the samples that a batch of 6 would, in every step."""
    alone = PatchStream(pairs, 6, 4, seed=1, start=12, length=18)
    shares = [PatchStream(pairs, 6, 4, seed=1, start=12, length=6, rank=r, world=3) for r in range(3)]
    for step in range(3):
        together = {share[2 * step + i]["target"].numpy().tobytes() for share in shares for i in range(2)}
        assert together == {alone[6 * step + i]["target"].numpy().tobytes() for i in range(6)}


def test_processes_share_whole_images_and_count_alike(pairs):
    """Three images: in one process, in two, and in five, two of which are left without any."""
    for world in (1, 2, 5):
        shares = [Share(pairs, rank, world) for rank in range(world)]
        assert {len(share) for share in shares} == {-(-3 // world)}
        batches = [share[i] for i in range(len(shares[0])) for share in shares]
        seen = [batch["image"][0] for batch in batches if len(batch["image"])]
        assert all(len(batch["image"]) == len(batch["target"]) for batch in batches)
        assert len(seen) == 3
        assert all(torch.equal(low, pairs[i][0]) for i, low in enumerate(seen))
