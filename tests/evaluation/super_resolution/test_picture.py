"""What is compared, and that the picture shows it where it says."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from geomoe import GeomoeError
from geomoe.data.super_resolution.degradation import interpolated
from geomoe.evaluation.figures import check_target
from geomoe.evaluation.super_resolution.compare import compare
from geomoe.evaluation.super_resolution.crops import most_different
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.evaluation.super_resolution.picture import FRAMES, draw, figure_of
from geomoe.models.contract import ModelContract, Tiling
from geomoe.moe.pictures import expert_colours
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline.tiles import Box
from tests.models.sizes import tiny
from tests.pipeline.fakes import FakeUpscaler, convolutional, nearest
from tests.scenes import pixels, write_scene

COARSE = replace(nearest(), name="nearest")
PLAIN = replace(convolutional(), name="plain")


def tiny_loaded(name):
    return FakeUpscaler(tiny(name).eval(), ModelContract.of_images(2, 3, Tiling(4, 16, 4)), name)


@pytest.fixture
def image(tmp_path):
    """61 x 43, smooth, cut to 60 x 42 at scale 2."""
    small = np.random.default_rng(0).integers(0, 256, (8, 11, 3), dtype=np.uint8)
    Image.fromarray(small).resize((61, 43), Image.Resampling.BICUBIC).save(tmp_path / "field.png")
    return tmp_path / "field.png"


def find(image, models=(COARSE,), **options):
    return compare(image, models, scale=2, device="cpu", **options)


def test_whole_images_are_scored_as_by_evaluate(image, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    image.rename(folder / image.name)
    for protocol in ("mfg_hmoe", "hsenet"):
        found = find(folder / image.name, protocol=protocol, tile=64)
        scores = evaluate(COARSE, folder, protocol=protocol, device="cpu").overall
        assert found.panels[0].whole == (scores.baseline["psnr"], scores.baseline["ssim"])
        assert found.panels[1].whole == (scores.values["psnr"], scores.values["ssim"])


def test_tiles_do_not_show_in_result_or_map(image):
    one, many = (find(image, tile=tile).panels[1] for tile in (64, 4))
    assert torch.equal(one.image, many.image)
    assert np.array_equal(one.experts.experts, many.experts.experts)


def test_the_map_is_that_of_the_plan(image):
    found = find(image, [COARSE, tiny_loaded("mfg_hmoe")], tile=64)
    for panel, model in zip(found.panels[1:], (COARSE.model, tiny("mfg_hmoe").eval()), strict=True):
        trace = RoutingTrace()
        with torch.no_grad():
            result = model(found.low[None], trace=trace)
        assert torch.allclose(panel.image, result[0], atol=1e-6)
        assert np.array_equal(panel.experts.experts, trace[-1].main.view(21, 30).numpy())
        assert sum(panel.experts.shares) == pytest.approx(1)
    shares = found.panels[1].experts.as_dict()["shares"]
    assert list(shares) == ["1x1 expert 1", "1x1 expert 2", "3x3 expert 1", "3x3 expert 2", "3x3 expert 3"]
    assert shares["1x1 expert 2"] == (found.panels[1].experts.experts == 1).mean()


def test_a_model_without_a_map_says_why(image):
    found = find(image, [PLAIN, tiny_loaded("swin2_mose"), COARSE], layer=2, tile=64)
    _, plain, whole, first = found.panels
    assert (plain.experts, plain.no_experts) == (None, "routes nothing")
    assert (first.experts, first.no_experts) == (None, "routes in fewer than 2 layers")
    assert (whole.experts.unit, whole.experts.layer, whole.experts.layers) == ("image", 2, 3)
    assert len(np.unique(whole.experts.experts)) == 1
    assert find(image, [tiny_loaded("swin2_mose")], tile=16).panels[1].experts.unit == "tile"
    with pytest.raises(GeomoeError, match="no model routes in 2 layers; nearest does in 1"):
        find(image, [PLAIN, COARSE], layer=2)
    with pytest.raises(GeomoeError, match="no layer 0"):
        find(image, layer=0)


def test_a_gate_on_one_expert_is_no_choice_among_experts(image):
    gated = FakeUpscaler(
        tiny("mfg_hmoe", head="gated").eval(), ModelContract.of_images(2, 3, Tiling(4, 16, 4)), "gated"
    )
    panel = find(image, [gated]).panels[1]
    assert (panel.experts, panel.no_experts) == (None, "has a gate and one expert")


def test_without_crops_the_most_different_is_taken(image):
    found = find(image, [COARSE, PLAIN])
    shown = [found.truth, *(panel.image for panel in found.panels)]
    assert found.chosen
    assert found.crops == (most_different(shown),)
    given = find(image, crops=[Box(1, 2, 12, 13), Box(0, 0, 60, 42)])
    assert not given.chosen
    assert given.panels[0].crops[1] == given.panels[0].whole
    with pytest.raises(GeomoeError, match="60 x 42"):
        find(image, crops=[Box(0, 0, 61, 42)])


def test_an_image_as_input_has_no_truth(image):
    found = find(image, degradation=None)
    assert found.truth is found.protocol is found.degradation is None
    assert found.low.shape == (3, 43, 61)
    assert torch.equal(found.panels[0].image, interpolated(found.low[None], 2)[0])
    assert all(panel.whole is None and panel.crops == (None,) for panel in found.panels)


def test_any_number_of_bands(tmp_path):
    gray = write_scene(tmp_path / "gray.tif", pixels(1, 40, 50, "uint16"))
    four = write_scene(tmp_path / "four.tif", pixels(4, 40, 50, "uint16"))
    found = find(gray)
    assert (found.low.shape, found.protocol) == ((1, 20, 25), "hsenet")
    assert torch.allclose(found.panels[1].image[0], COARSE.model(found.low[None].expand(1, 3, -1, -1))[0, 0])
    found = find(four)
    assert (found.low.shape, found.protocol) == ((3, 20, 25), "mfg_hmoe")
    assert find(four, [nearest(bands=4)]).low.shape == (4, 20, 25)
    for each in (gray, four):
        draw(find(each), tmp_path / "x.png")
    with pytest.raises(GeomoeError, match="4 are wanted"):
        find(write_scene(tmp_path / "three.tif", pixels(3, 40, 50, "uint16")), [nearest(bands=4)])
    with pytest.raises(GeomoeError, match="3 and 4 bands"):
        find(four, [COARSE, nearest(bands=4)])


def test_tiny_images_are_drawn_without_scores(tmp_path):
    Image.new("RGB", (5, 2), "red").save(tmp_path / "tiny.png")
    found = find(tmp_path / "tiny.png")
    assert found.low.shape == (3, 1, 2)
    assert found.panels[1].whole is None
    draw(found, tmp_path / "out.png")
    Image.new("RGB", (5, 1)).save(tmp_path / "tiny.png")
    with pytest.raises(GeomoeError, match="too small for a scale of 2"):
        find(tmp_path / "tiny.png")


def test_names_must_differ(image):
    with pytest.raises(GeomoeError, match="two panels would be called 'nearest'"):
        find(image, [COARSE, COARSE])


def drawn(comparison):
    """The rendered pixels ``[H, W, 3]``, and a function from axes and data coordinates to one of them."""
    figure = figure_of(comparison)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3]
    axes = {each.get_label(): each for each in figure.axes}

    def at(label, x, y):
        column, row = axes[label].transData.transform((x, y))
        return tuple(rgb[int(rgb.shape[0] - row), int(column)])

    return axes, at


def rgb_of(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_the_frame_is_where_the_crop_is(tmp_path):
    base = np.full((96, 128, 3), 90, np.uint8)
    base[32:64, 64:80] = (10, 200, 30)
    Image.fromarray(base).save(tmp_path / "box.png")
    boxes = (Box(64, 32, 16, 32), Box(8, 8, 24, 16))
    axes, at = drawn(find(tmp_path / "box.png", crops=boxes))
    for number, box in enumerate(boxes):
        right, bottom = box.x + box.width, box.y + box.height
        for x, y in ((box.x, box.y + 5), (right, box.y + 5), (box.x + 5, box.y), (box.x + 5, bottom)):
            assert at("whole", x, y) == rgb_of(FRAMES[number])
            assert at("experts: nearest", x, y) == rgb_of(FRAMES[number])
    assert at("whole", 72, 48) == (10, 200, 30)
    assert at("whole", 100, 80) == (90, 90, 90)
    for x in (2, 8, 14):
        assert at("crop 1: truth", x, 16) == (10, 200, 30), "the crop holds what the frame holds"
        assert at("crop 2: truth", x, 8) == (90, 90, 90)
    assert "crop 2: bicubic" in axes


def test_the_colours_of_the_map_are_those_of_the_plan(image):
    found = find(image, crops=[Box(0, 0, 12, 12)])
    axes, at = drawn(found)
    experts, colours = found.panels[1].experts, expert_colours((2, 3)).tolist()
    seen = set()
    for row in range(8, 21):
        for column in range(8, 30):  # outside the frame
            colour = at("experts: nearest", 2 * column + 1, 2 * row + 1)
            assert list(colour) == colours[experts.experts[row, column]]
            seen.add(colour)
    assert len(seen) >= 3
    said = [text.get_text() for text in axes["legend: nearest"].texts]
    there = np.unique(experts.experts)
    assert said[::2] == [experts.names[i] for i in there], "experts that drew nothing are left out"
    assert said[1::2] == [f"{(experts.experts == i).mean():.1%}" for i in there]


def test_a_long_legend_keeps_the_largest(image):
    found = find(image)
    many = replace(
        found.panels[1].experts, group_sizes=(300, 300), experts=np.arange(630).reshape(21, 30) % 599
    )
    many.experts[5:9] = 7
    axes, _ = drawn(replace(found, panels=(found.panels[0], replace(found.panels[1], experts=many))))
    said = [text.get_text() for text in axes["legend: nearest"].texts]
    assert "1x1 expert 8" in said
    assert said[-2].endswith(" more")
    assert len(said) < 60


def test_models_that_route_nothing_say_so_and_many_wrap(image):
    models = [replace(PLAIN, name=f"plain{i}") for i in range(8)]
    found = find(image, [*models, COARSE])
    axes, _ = drawn(found)
    assert "routes nothing" in axes["experts: plain3"].texts[0].get_text()
    assert "legend: plain3" not in axes
    boxes = [each.get_position() for each in axes.values()]
    assert all(min(b.x0, b.y0) >= 0 and max(b.x1, b.y1) <= 1 for b in boxes), "all on the page"
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert min(a.x1, b.x1) <= max(a.x0, b.x0) + 1e-9 or min(a.y1, b.y1) <= max(a.y0, b.y0) + 1e-9


def test_the_same_comparison_gives_the_same_bytes_whatever_the_settings(image, tmp_path):
    import matplotlib

    found = find(image)
    for suffix in ("png", "pdf"):
        draw(found, tmp_path / f"a.{suffix}")
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
            draw(found, tmp_path / f"b.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "b.pdf", "b.png", "field.png"]


def test_names_are_not_taken_for_formulas(image, tmp_path):
    image = image.rename(tmp_path / "$a^^b$.png")
    found = find(image, [replace(COARSE, name="$x_{$ 1$")])
    draw(found, tmp_path / "x.png")  # a formula that is none would be an error
    written = "".join(text.get_text() for text in figure_of(found).findobj(Text))
    assert "$a^^b$.png" in written.replace("\\$", "$")
    assert "$x_{$ 1$" in written.replace("\\$", "$")


def test_targets_are_checked_first(image, tmp_path):
    (tmp_path / "there.png").write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    for name, said in {
        "x.gif": "must end in .png or .pdf",
        "no/x.png": "does not exist",
        "folder.png": "is a folder",
        "there.png": "--overwrite",
    }.items():
        with pytest.raises(GeomoeError, match=said):
            check_target(tmp_path / name, image, overwrite=False)
    check_target(tmp_path / "there.png", image, overwrite=True)
    with pytest.raises(GeomoeError, match="image itself"):
        check_target(image, image, overwrite=True)


def test_rasters_are_stretched_for_display_alike(tmp_path):
    data = pixels(3, 40, 50, "uint16").astype(np.uint16)
    found = find(write_scene(tmp_path / "s.tif", data))
    assert not found.eight_bit
    dim = replace(found, eight_bit=True, truth=found.truth * 0.4)
    _, plain = drawn(dim)
    _, stretched = drawn(replace(dim, eight_bit=False))
    places = [(x, y) for x in range(2, 30, 3) for y in range(2, 30, 3)]
    assert max(max(stretched("crop 1: truth", *p)) for p in places) > 240
    assert max(max(plain("crop 1: truth", *p)) for p in places) < 110
    with rasterio.open(tmp_path / "s.tif") as file:
        assert np.array_equal(file.read(), data)
