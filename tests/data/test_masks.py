"""Images with masks: legends, cubes, folders."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.data.cubes import find_cube, read_cube
from geomoe.data.datasets import DATA_SETS, find_data_set
from geomoe.data.labelled import Reading, read_labelled
from geomoe.data.legend import IGNORED, Legend, colours_for
from geomoe.data.masks import masked_files, read_mask
from tests.scenes import pixels, write_scene


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8), mode).save(path)
    return path


def test_values_become_places_of_classes():
    legend = Legend(("wood", "water"), values=(4, 9), ignored=0)
    assert legend.indices(np.array([[0, 4], [9, 4]])).tolist() == [[IGNORED, 0], [1, 0]]
    with pytest.raises(GeomoeError, match=r"m\.png holds 7, which is no class; there are: 4 wood; 9 water"):
        legend.indices(np.array([[7]]), "m.png")


def test_where_every_value_is_a_class_none_is_ignored():
    legend = Legend.of_values([0, 1], ignored=None, names=["rest", "building"])
    assert legend.values == (0, 1)
    assert legend.indices(np.array([0, 1, 0])).tolist() == [0, 1, 0]


def test_a_legend_of_values_leaves_out_the_ignored_one():
    legend = Legend.of_values([255, 3, 1], ignored=255)
    assert legend.names == ("class 1", "class 3")
    assert legend.indices(np.array([1, 255, 3])).tolist() == [0, IGNORED, 1]
    with pytest.raises(GeomoeError, match="3 names of classes for masks that hold 2"):
        Legend.of_values([1, 2], names=["a", "b", "c"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": ("a",)},
        {"names": ("a", "a")},
        {"names": ("a", "b"), "values": (1,)},
        {"names": ("a", "b"), "values": (1, 1)},
        {"names": ("a", "b"), "values": (0, 1)},
        {"names": ("a", "b"), "colours": ("#ffffff", "white")},
    ],
)
def test_a_legend_that_is_none_is_refused(wrong):
    with pytest.raises(GeomoeError, match="expected"):
        Legend(**wrong)


def test_colours_differ():
    assert len(set(colours_for(40))) == 40
    assert Legend(("a", "b")).colours == colours_for(2)


def cube(path, size=(6, 5, 4), **arrays):
    rng = np.random.default_rng(0)
    held = {"cube": rng.integers(0, 5000, size, dtype=np.uint16),
            "labels": rng.integers(0, 17, size[:2], dtype=np.uint8), **arrays}  # fmt: skip
    np.savez(path, **{name: value for name, value in held.items() if value is not None})
    return path, held


def test_a_cube_is_read_in_its_own_units(tmp_path):
    path, held = cube(tmp_path / "indian_pines.npz")
    read = read_cube(path)
    assert read.known is DATA_SETS["indian_pines"]
    assert len(read.known.legend.names) == 16
    assert np.array_equal(read.data, held["cube"].transpose(2, 0, 1).astype(np.float32))
    assert np.array_equal(read.labels, held["labels"])
    assert read_cube(cube(tmp_path / "other.npz")[0]).known is None


def test_a_cube_is_found_in_its_folder(tmp_path):
    assert find_cube(tmp_path) is None
    path, _ = cube(tmp_path / "a.npz")
    assert find_cube(tmp_path) == find_cube(path) == path
    cube(tmp_path / "b.npz")
    with pytest.raises(GeomoeError, match="holds 2 cubes"):
        find_cube(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"labels": None}, "holds no 'labels', but cube"),
        ({"labels": np.zeros((2, 2), np.uint8)}, r"labels \[2, 2\]"),
        ({"cube": np.zeros((6, 5), np.uint8)}, r"a cube \[6, 5\]"),
        ({"labels": np.zeros((6, 5))}, "labels of float64"),
        ({"labels": np.zeros((6, 5), object)}, "is not a cube that can be read"),
    ],
)
def test_a_file_that_is_no_cube_is_refused(tmp_path, arrays, said):
    with pytest.raises(GeomoeError, match=said):
        read_cube(cube(tmp_path / "c.npz", **arrays)[0])


def test_a_broken_cube_is_refused(tmp_path):
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(GeomoeError, match="is not a cube"):
        read_cube(tmp_path / "c.npz")
    with pytest.raises(GeomoeError, match="is not a cube"):
        read_cube(tmp_path / "none.npz")


def test_a_cube_that_would_take_all_memory_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cube.npy", bytes(10**6))
    monkeypatch.setattr("geomoe.raster.formats.cube.MAX_BYTES", 10**6 - 1)
    with pytest.raises(GeomoeError, match="holds 1,000,000 bytes"):
        read_cube(tmp_path / "c.npz")


def test_masks_are_found_beside_their_images(tmp_path):
    save(tmp_path / "a" / "1.jpg", np.zeros((4, 4, 3)))
    save(tmp_path / "a" / "1_mask.png", np.zeros((4, 4)))
    [one] = masked_files(tmp_path)
    assert (one.image.name, one.mask.name, one.name, one.folder) == ("1.jpg", "1_mask.png", "a/1.jpg", "a")
    save(tmp_path / "b" / "2.jpg", np.zeros((4, 4, 3)))
    with pytest.raises(GeomoeError, match="without mask, first 2"):
        masked_files(tmp_path)


def test_masks_are_found_in_a_folder_of_their_own(tmp_path):
    for folder in ("S2", "LULC"):
        save(tmp_path / folder / "x" / ("1.png" if folder == "LULC" else "1.jpg"), np.zeros((4, 4)))
    [one] = masked_files(tmp_path, "S2", "LULC")
    assert (one.name, one.mask.parent.parent.name) == ("x/1.jpg", "LULC")
    save(tmp_path / "LULC" / "2.png", np.zeros((4, 4)))
    with pytest.raises(GeomoeError, match=r"1 file of .*LULC without image, first 2\.png"):
        masked_files(tmp_path, "S2", "LULC")
    with pytest.raises(GeomoeError, match="holds no images with masks"):
        masked_files(tmp_path)


def test_a_mask_is_the_indices_of_its_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 2], [1, 5]], np.uint8))
    image.putpalette([7] * 768)
    image.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png").tolist() == [[0, 2], [1, 5]]
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "deep.tif")
    assert read_mask(tmp_path / "deep.tif").tolist() == [[0, 300]]


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("m.png", (4, 4, 3), "of the kind RGB"),
        ("m.jpg", (4, 4), "compressed with loss"),
        ("m.png", (40, 40), "more than"),
    ],
)
def test_an_image_that_is_no_mask_is_refused(tmp_path, name, shape, said):
    with pytest.raises(GeomoeError, match=said):
        read_mask(save(tmp_path / name, np.zeros(shape)), max_pixels=100)


def test_dubai_is_known(tmp_path):
    assert find_data_set(tmp_path, "masks") is None
    for k in range(1, 9):
        save(tmp_path / f"tile{k}" / "001_mask.png", np.zeros((2, 2)))
    found = find_data_set(tmp_path, "masks")
    assert found.name == "dubai"
    assert found.legend.indices(torch.arange(6).numpy()).tolist() == [IGNORED, 0, 1, 2, 3, 4]


def test_types_of_images_are_known(tmp_path):
    save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    write_scene(tmp_path / "b.tif", pixels(3, 8, 8, "uint16"))
    write_scene(tmp_path / "c.tif", pixels(3, 8, 8, "float32"))
    for name in "abc":
        save(tmp_path / f"{name}_mask.png", np.eye(8, dtype=np.uint8))
    found = read_labelled(tmp_path, Reading(bands=3, ignored=None))
    assert found.dtypes == ("float32", "uint16", "uint8")
