"""Training sets that are mixed of several sources."""

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.configs import find_config
from geomoe.data.super_resolution.degradation import get_degradation
from geomoe.data.super_resolution.mixed import mixed_pairs, source_pairs
from geomoe.data.super_resolution.pairs import PatchStream, degrade
from geomoe.data.super_resolution.sources import Source, read_part, said_of
from geomoe.layers.super_resolution.known import Known
from geomoe.tasks.super_resolution_data import SuperResolutionData
from tests.scenes import pixels, write_scene


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two folders of ten grey images a class; a scene of four bands."""
    root = tmp_path_factory.mktemp("sources")
    for folder in ("a/sea", "a/town", "b/tile1", "b/tile2", "b/tile3"):
        (root / folder).mkdir(parents=True)
        for i in range(10):
            value = 20 * i + (5 if folder.startswith("b") else 0)
            Image.new("RGB", (40, 40), (value, value, value)).save(root / folder / f"{i}.png")
        Image.new("L", (40, 40)).save(root / folder / "0_mask.gif")
    (root / "scene").mkdir()
    write_scene(root / "scene" / "s.tif", pixels(4, 60, 100, "uint16"), names=["B04", "B03", "B02", "B08"])
    return root


def names(source, root, part, **options):
    options = {"bands": 3, "validation": 0.2, "least": 8, **options}
    return [name for name, _ in read_part(source, root, part, **options)]


def test_parts_are_whole_images_of_each_folder_and_do_not_overlap(root):
    source = Source("a", "a", held_out=0.2)
    parts = {part: names(source, root, part) for part in ("fit", "validation", "test")}
    assert parts["test"] == ["sea/4.png", "sea/9.png", "town/4.png", "town/9.png"]
    assert sum(len(found) for found in parts.values()) == 20
    assert len(set().union(*parts.values())) == 20
    assert {name.split("/")[0] for name in parts["validation"]} == {"sea", "town"}


def test_folders_are_held_out_whole(root):
    source = Source("b", "b", by="folder", held_out=0.3, files="*.png")
    assert {name.split("/")[0] for name in names(source, root, "test")} == {"tile3"}
    assert {name.split("/")[0] for name in names(source, root, "fit")} == {"tile1", "tile2"}


def test_areas_are_held_out_by_columns(root):
    source = Source("s", "scene", by="area", held_out=0.3, bands="B04,B03,B02")
    parts = [read_part(source, root, part, bands=3, validation=0.1, least=8)[0][1]
             for part in ("fit", "validation", "test")]  # fmt: skip
    assert [image.shape[2] for image in parts] == [63, 7, 30]
    whole = read_part(Source("s", "scene", by="area", held_out=0, bands="B04,B03,B02"), root, "fit", bands=3,
                      validation=0, least=8)[0][1]  # fmt: skip
    assert torch.equal(torch.cat(parts, 2), whole)


def test_one_band_stands_in_the_place_of_all(root):
    (_, image), = read_part(Source("n", "scene", by="area", bands="B08"), root, "fit", bands=3, validation=0,
                            least=8)  # fmt: skip
    assert len(image) == 3
    assert torch.equal(image[0], image[2])


def test_patches_come_from_each_source_in_its_share_and_again_the_same(root):
    sources = [
        Source("a", "a", share=3, gsd=10, sensor="sentinel-2"),
        Source("b", "b", share=1, gsd=0.5, degradations={"mtf": 1.0}),
        Source("none", "nowhere", share=0),
    ]
    pairs = mixed_pairs(sources, root, "fit", scale=2, bands=3, validation=0.2, patch=8)
    stream = PatchStream(pairs, 8, 2, seed=0, start=0, length=400, forget=0.0)
    known = torch.stack([stream[i]["known"] for i in range(400)])
    mine = known[:, 0] == 1  # sentinel-2
    assert 270 < int(mine.sum()) < 330
    expected = torch.tensor(Known("sentinel-2", 10.0, "bilinear", None, 0.0).encoded())
    assert torch.equal(known[mine][0], expected)
    other = torch.tensor(Known(None, 0.5, "sensor", 0.2, 0.0).encoded())
    torch.testing.assert_close(known[~mine][0], other)
    again = PatchStream(pairs, 8, 2, seed=0, start=10, length=9, forget=0.0)[7]
    assert again.keys() == {"image", "target", "known"}
    assert all(torch.equal(value, stream[17][key]) for key, value in again.items())


def test_what_is_known_does_not_move_the_patches_and_is_forgotten_as_often_as_asked(root):
    pairs = mixed_pairs([Source("a", "a", gsd=10)], root, "fit", scale=2, bands=3, validation=0.2, patch=8)
    plain = PatchStream(pairs, 8, 2, seed=0, start=0, length=200)
    told = PatchStream(pairs, 8, 2, seed=0, start=0, length=200, forget=0.4)
    assert all(torch.equal(plain[i]["target"], told[i]["target"]) for i in range(5))
    kept = sum(bool(told[i]["known"][7]) for i in range(200))  # that the ground sampling distance is known
    assert 95 < kept < 145


def test_a_mixture_of_degradations_draws_each_in_its_share():
    source = Source("a", degradations={"bilinear": 3.0, "mtf": 1.0})
    assert source.inputs == "0.75 bilinear + 0.25 mtf"
    drawn = [source.degradation.drawn(i).name for i in range(400)]
    assert 270 < drawn.count("bilinear") < 330
    assert Source("a", degradations={"mtf": 2.0}).degradation is get_degradation("mtf")


def test_made_surfaces_are_pairs_of_any_phase_that_know_how_they_were_made():
    pairs = source_pairs(
        Source("m", made=("ramps", "flat"), degradations={"mtf_noise": 1.0}), None, "fit", scale=4, bands=3,
        validation=0, patch=6,
    )  # fmt: skip
    low, high = pairs.cut(1, 6, np.random.default_rng(0), 5, True)
    assert low.shape == (3, 6, 6)
    assert high.shape == (3, 24, 24)
    assert high.std((1, 2)).max() < 1e-6  # flat, and its noise is in the low one alone
    assert low.std((1, 2)).min() > 1e-3
    assert pairs.known(1, 5).noise == pytest.approx(1.5e-4**0.5)
    assert len(pairs) == 8
    assert pairs[0][0].shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"folder": "a", "made": ("ramps",)}, "made surfaces have no folder"),
        ({"made": ("cliffs",)}, "no made surface is called 'cliffs'"),
        ({"degradations": {}}, "x.degradations"),
        ({"degradations": {"mtf": 0.0}}, "x.degradations.mtf"),
        ({"degradations": {"dirt": 1.0}}, "no degradation is called 'dirt'"),
        ({"share": -1.0}, "x.share"),
        ({"held_out": 1.0}, "x.held_out"),
        ({"variants": {"dark": 2.0}}, "sum to 1"),
        ({"gsd": 0.0}, "x.gsd"),
        ({"made": ("flat",), "degradations": {"mtf": 99.0, "sensors_jpeg": 1.0}}, "JPEG needs 8-bit images"),
    ],
)
def test_a_source_that_cannot_be_is_refused(options, match):
    with pytest.raises(GeomoeError, match=match):
        Source("x", **options)


def test_sources_that_cannot_be_mixed_are_refused(root):
    def mix(*sources):
        return mixed_pairs(list(sources), root, "fit", scale=2, bands=3, validation=0.2, patch=8)

    with pytest.raises(GeomoeError, match="two are called 'a'"):
        mix(Source("a", "a"), Source("a", "b"))
    with pytest.raises(GeomoeError, match="no source has a share"):
        mix(Source("a", "a", share=0))
    with pytest.raises(GeomoeError, match=r"source a: .* no image that matches \*.bmp"):
        mix(Source("a", "a", files="*.bmp"))
    with pytest.raises(GeomoeError, match="source s: sensors_jpeg compresses"):
        mix(Source("s", "scene", by="area", bands="B04,B03,B02", degradations={"sensors_jpeg": 1.0}))
    seldom = {"mtf": 1e6, "sensors_jpeg": 1.0}  # no patch of the first hour would show it
    with pytest.raises(GeomoeError, match=r"source s: .*sensors_jpeg compresses"):
        mix(Source("s", "scene", by="area", bands="B04,B03,B02", degradations=seldom))
    with pytest.raises(GeomoeError, match="have their own layouts"):
        SuperResolutionData(str(root), sources=[Source("a", "a")], degradation="mtf")


def test_a_card_says_of_a_source_what_is_not_usual():
    said = said_of(Source("a", "a", share=2, gsd=10))
    assert said == {"name": "a", "folder": "a", "share": 2, "degradations": {"bilinear": 1.0}, "gsd": 10}


def test_the_shipped_mixture_can_be_read():
    import yaml

    with open(find_config("mfg_hmoe_light_satellites")) as file:
        sources = [Source(**{**one, "made": tuple(one.get("made", ()))})
                   for one in yaml.safe_load(file)["data"]["sources"]]  # fmt: skip
    assert len({source.name for source in sources}) == len(sources) > 10
    assert all(source.held_out > 0 for source in sources if source.folder)
    assert all(source.source for source in sources if source.folder)


def test_equal_bands_stay_equal_with_their_noise(root):
    ((_, image),) = read_part(Source("n", "scene", by="area", bands="B08"), root, "fit", bands=3,
                                  validation=0, least=8)  # fmt: skip
    for one in (image, (image * 255).round().to(torch.uint8)):
        low, high = degrade(one, 2, get_degradation("mtf_noise"))
        assert low.shape[1:] == (30, high.shape[2] // 2)
        assert torch.equal(low[0], low[1])
        assert torch.equal(low[0], low[2])
        colours = one.clone()
        colours[0, 0, 0] = 0
        other, _ = degrade(colours, 2, get_degradation("mtf_noise"))
        assert not torch.equal(other[1], other[2])
