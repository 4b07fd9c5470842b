import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.data.aid import AID_CLASSES, aid_files
from geomoe.data.super_resolution.layouts import find_layout, hold_out, real_pairs
from geomoe.data.super_resolution.pairs import PatchStream, RealPairs
from geomoe.data.super_resolution.stretch import divided, stretched
from tests.scenes import pixels, write_scene


@pytest.fixture(scope="module")
def aid(tmp_path_factory):
    root = tmp_path_factory.mktemp("aid")
    for name, count in AID_CLASSES.items():
        (root / "AID" / name).mkdir(parents=True)
        for i in range(1, count + 1):
            (root / "AID" / name / f"{name.lower()}_{i}.jpg").touch()
    return root


def test_aid_is_split_as_stated(aid):
    assert (len(AID_CLASSES), sum(AID_CLASSES.values())) == (30, 10_000)
    train, test = aid_files(aid, "train"), aid_files(aid / "AID", "test")
    assert (len(train), len(test)) == (8000, 2000)
    assert not set(train) & set(test)
    rng = np.random.default_rng(0)
    for name in sorted(AID_CLASSES):
        names = sorted(path.name for path in (aid / "AID" / name).iterdir())
        drawn = {names[i] for i in rng.permutation(len(names))[: len(names) // 5]}
        assert drawn == {path.name for path in test if path.parent.name == name}
    fit, validation = aid_files(aid, "fit"), aid_files(aid, "validation")
    assert len(validation) == 90
    assert sorted(fit + validation) == sorted(train)
    assert find_layout(aid) == find_layout(aid / "AID") == "aid"


def test_a_copy_of_aid_that_lacks_an_image_is_refused(aid):
    lost = aid / "AID" / "Desert" / "desert_7.jpg"
    lost.unlink()
    try:
        with pytest.raises(GeomoeError, match=r"Desert holds 299 images .* of the 300"):
            aid_files(aid, "fit")
    finally:
        lost.touch()
    with pytest.raises(GeomoeError, match="AID/<Class>"):
        aid_files(aid / "AID" / "Desert", "fit")


def test_every_kth_is_held_out():
    assert hold_out(range(40), 0.05, "") == ([i for i in range(40) if i not in (19, 39)], [19, 39])
    assert hold_out("ab", 0.05, "") == (["a"], ["b"])
    with pytest.raises(GeomoeError, match="one thing; training needs at least two"):
        hold_out("a", 0.05, "one thing")


def test_a_pair_is_stretched_by_its_low_image_alone():
    low = torch.stack([torch.arange(1000.0), torch.full((1000,), 5.0)]).view(2, 10, 100)
    to_unit = stretched(low)
    # The percentiles 0.1 and 99.9 of 0 .. 999, nearest rank: 0.999 and 998.001 are 1 and 998.
    assert (to_unit.low.flatten().tolist(), float(to_unit.span[0])) == ([1.0, 5.0], 997.0)
    high = torch.full((2, 20, 200), 5.0)
    assert float(to_unit(high)[0, 0, 0]) == pytest.approx(4 / 997)
    assert float(to_unit(high)[1].abs().max()) == 0
    assert float(divided(2, 10_000)(torch.full((2, 1, 1), 2500, dtype=torch.int16))[0]) == 0.25


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_the_range_is_the_one_that_scenes_have_at_inference(dtype):
    from geomoe.raster import SceneSample, decide_radiometry

    low = pixels(5, 40, 30, dtype)
    low[1] = 7
    low[2], low[2, 0, 0] = 7, 900  # all but one pixel alike
    low[3] = 0
    radiometry = decide_radiometry(dtype, SceneSample(tuple(low.reshape(5, -1).astype(np.float32)), 1.0))
    ours = stretched(torch.from_numpy(low))(torch.from_numpy(low))
    np.testing.assert_allclose(ours, radiometry.to_model(low.astype(np.float32)), atol=2e-6, rtol=1e-5)


def numbered(scale, sizes=((20, 24), (18, 18))):
    """Pairs in which every high-resolution pixel holds the value of the low one that it lies in."""
    pairs = []
    for i, (height, width) in enumerate(sizes):
        low = torch.arange(height * width, dtype=torch.float32).view(1, height, width) + 1000 * i
        pairs.append((low, low.repeat_interleave(scale, 1).repeat_interleave(scale, 2)))
    return pairs


@pytest.mark.parametrize("augment", [True, False])
def test_patches_of_real_pairs_are_cut_and_turned_together(augment):
    stream = PatchStream(RealPairs(numbered(3), 3), 5, 3, seed=0, start=0, length=60, augment=augment)
    turned = set()
    for sample in stream:
        low, high = sample["image"], sample["target"]
        assert low.shape == (1, 5, 5)
        assert torch.equal(high, low.repeat_interleave(3, 1).repeat_interleave(3, 2))
        turned.add(((low[0, 0, 1] - low[0, 0, 0]).item(), (low[0, 1, 0] - low[0, 0, 0]).item()))
        if len(turned) == (16 if augment else 2):
            break
    else:
        pytest.fail(f"only {len(turned)} of the ways to turn two images")


def test_a_patch_larger_than_a_real_pair_is_refused():
    with pytest.raises(GeomoeError, match="patch_size=19: too large for 1 image at"):
        PatchStream(RealPairs(numbered(2), 2), 19, 2, 0, 0, 1)


def oli2msi(root, part="train", count=3, **options):
    rng = np.random.default_rng(0)
    for i in range(count):
        low = rng.random((3, 8, 8), dtype=np.float32) * 0.3
        for kind, data in (("lr", low), ("hr", low.repeat(3, 1).repeat(3, 2))):
            (root / f"{part}_{kind}").mkdir(parents=True, exist_ok=True)
            write_scene(root / f"{part}_{kind}" / f"L8_N{i}.TIF", data, **options)
    return root


def test_oli2msi_is_read_by_name_as_reflectance_or_stretched(tmp_path):
    import rasterio

    oli2msi(tmp_path), oli2msi(tmp_path, "test", 1)
    assert find_layout(tmp_path) == "oli2msi"
    with rasterio.open(tmp_path / "train_lr" / "L8_N0.TIF") as file:
        stored = torch.from_numpy(file.read())
    options = {"scale": 3, "bands": 3}
    plain = real_pairs("oli2msi", tmp_path, "fit", stretch=False, **options)
    assert torch.equal(plain[0][0], stored)
    assert plain[0][1].shape == (3, 24, 24)
    low, high = real_pairs("oli2msi", tmp_path, "fit", **options)[0]
    torch.testing.assert_close(low, stretched(stored)(stored))
    torch.testing.assert_close(high[:, ::3, ::3], low)
    parts = [len(real_pairs("oli2msi", tmp_path, part, **options)) for part in ("fit", "validation", "test")]
    assert parts == [2, 1, 1]


def test_oli2msi_that_is_not_whole_is_refused(tmp_path):
    oli2msi(tmp_path)
    with pytest.raises(GeomoeError, match="scale of 3, not 4"):
        real_pairs("oli2msi", tmp_path, "fit", scale=4, bands=3)
    with pytest.raises(GeomoeError, match="has 3 bands of data, 4 are wanted"):
        real_pairs("oli2msi", tmp_path, "fit", scale=3, bands=4)
    write_scene(tmp_path / "train_hr" / "L8_N1.TIF", np.zeros((3, 24, 16), np.float32))
    with pytest.raises(GeomoeError, match="8 x 8 pixels and its counterpart 16 x 24"):
        real_pairs("oli2msi", tmp_path, "fit", scale=3, bands=3)
    (tmp_path / "train_hr" / "L8_N1.TIF").unlink()
    with pytest.raises(GeomoeError, match=r"1 file without a counterpart, first L8_N1.TIF"):
        real_pairs("oli2msi", tmp_path, "fit", scale=3, bands=3)


def sen2venus(root, site, dates, low="10m_b2b3b4b8", side=16, scale=2, count=3):
    """Band c of patch n holds the value 1000 c + 10 n, and one more in every second row."""
    (root / site).mkdir(parents=True, exist_ok=True)
    for date in dates:
        value = 1000 * torch.arange(4)[None, :, None, None] + 10 * torch.arange(count)[:, None, None, None]
        patch = (value + torch.arange(side)[:, None] % 2).expand(count, 4, side, side).to(torch.int16)
        torch.save(patch.clone(), root / site / f"{site}_{date}_{low}.pt")
        fine = patch.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        torch.save(fine, root / site / f"{site}_{date}_05m_{low.split('_')[1]}.pt")
    return root


def test_sen2venus_is_read_red_first(tmp_path):
    sen2venus(tmp_path, "ALSACE", ["2018-02-14", "2018-02-19"])
    sen2venus(tmp_path, "ARM", ["2019-01-01"], count=2)
    assert find_layout(tmp_path) == find_layout(tmp_path / "ARM") == "sen2venus"
    options = {"scale": 2, "bands": 4, "stretch": False}
    fit = real_pairs("sen2venus", tmp_path, "fit", validation=0.5, **options)
    assert len(fit) == 3 + 2
    low, high = fit[1]
    assert (low.shape, high.shape) == ((4, 16, 16), (4, 32, 32))
    torch.testing.assert_close(low[:, 0, 0], torch.tensor([0.201, 0.101, 0.001, 0.301]))
    torch.testing.assert_close(high[:, ::2, ::2], low)
    assert len(real_pairs("sen2venus", tmp_path, "validation", validation=0.5, **options)) == 3
    assert len(real_pairs("sen2venus", tmp_path / "ARM", "test", **options)) == 2
    one = real_pairs("sen2venus", tmp_path / "ARM", "test", scale=2, bands=4)  # stretched over both patches
    assert one[0][0].amin() == 0
    assert one[1][1].amax() == 1
    stream = PatchStream(fit, 8, 2, seed=0, start=0, length=4)
    assert stream[3]["target"].shape == (4, 16, 16)


@pytest.mark.parametrize("name", ["b4b5b6b8a", "b5b6b7b8a"])
def test_the_red_edge_of_sen2venus_is_read_under_both_its_names(tmp_path, name):
    sen2venus(tmp_path, "ARM", ["2019-01-01"], f"20m_{name}", side=8, scale=4)
    (tmp_path / "ARM" / "index.csv").write_text(
        "vns_site\tnb_patches\ttensor_20m_b5b6b7b8a\nARM\t3\tARM_2019-01-01_20m_b5b6b7b8a.pt\n"
    )
    low, high = real_pairs("sen2venus", tmp_path, "test", scale=4, bands=3, stretch=False)[0]
    assert (low.shape, high.shape) == ((3, 8, 8), (3, 32, 32))
    torch.testing.assert_close(low[:, 0, 0], torch.tensor([0.0, 0.1, 0.2]))


def test_sen2venus_that_is_not_whole_is_refused(tmp_path):
    sen2venus(tmp_path, "ARM", ["2019-01-01", "2019-01-05"])
    site = tmp_path / "ARM"

    def read(scale=2, bands=4):
        return real_pairs("sen2venus", tmp_path, "test", scale=scale, bands=bands)

    with pytest.raises(GeomoeError, match=r"scales of 2 .* not 3"):
        read(scale=3)
    with pytest.raises(GeomoeError, match="holds no \\*_20m_"):
        read(scale=4)
    with pytest.raises(GeomoeError, match="has 4 bands"):
        read(bands=8)
    (site / "index.csv").write_text(
        "tensor_10m_b2b3b4b8\nARM_2019-01-01_10m_b2b3b4b8.pt\ngone_10m_b2b3b4b8.pt\n"
    )
    with pytest.raises(GeomoeError, match=r"1 file of Sen2Venus missing, first .*gone"):
        read()
    (site / "index.csv").unlink()
    torch.save(torch.zeros(3, 4, 30, 32), site / "ARM_2019-01-05_05m_b2b3b4b8.pt")
    with pytest.raises(GeomoeError, match=r"expected .N, 4, h, w."):
        read()
    (site / "ARM_2019-01-05_05m_b2b3b4b8.pt").unlink()
    with pytest.raises(GeomoeError, match=r"missing, first .*2019-01-05_05m"):
        read()


def test_a_file_that_would_have_to_be_unpickled_is_refused(tmp_path):
    sen2venus(tmp_path, "ARM", ["2019-01-01"])
    path = tmp_path / "ARM" / "ARM_2019-01-01_05m_b2b3b4b8.pt"
    tensor = torch.load(path, weights_only=True)
    torch.save(tensor, path, _use_new_zipfile_serialization=False)  # cannot be mapped, but read
    assert len(real_pairs("sen2venus", tmp_path, "test", scale=2, bands=4)) == 3
    torch.save(tensor.numpy(), path)
    with pytest.raises(GeomoeError, match="not a file of a single tensor"):
        real_pairs("sen2venus", tmp_path, "test", scale=2, bands=4)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(GeomoeError, match="not a file of a single tensor, or is damaged"):
        real_pairs("sen2venus", tmp_path, "test", scale=2, bands=4)
