"""``geomoe predict``, as a user runs it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geomoe.models.weights import save
from geomoe.pipeline import Request
from geomoe.pipeline.batch.scene import do_scene, pinned
from tests.cli.run import run
from tests.models.test_map_models import tiny
from tests.models.test_weights import card_of
from tests.pipeline.test_predict import BANDS, NAMES
from tests.pipeline.test_predict import weights as land
from tests.pipeline.test_table import weights as labels
from tests.scenes import left_over, pixels, write_scene


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = land(tmp_path / "land.safetensors").path
    assert path is not None
    return path


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", pixels(BANDS, 24, 30, "uint16"), names=NAMES)


def test_a_scene_becomes_a_map_with_a_picture_and_info_says_so_before(
    capsys: pytest.CaptureFixture[str], src: Path, model: Path, tmp_path: Path
) -> None:
    out, confidence, picture = (tmp_path / name for name in ("o.tif", "c.tif", "p.png"))
    _, told, _ = run(capsys, "info", src, "--model", model)
    assert "predict     land, classes of pixels: 30 x 24 pixels, 1 tile of" in told
    status, told, _ = run(
        capsys, "predict", src, out, "--model", model, "--confidence", confidence, "--picture", picture
    )
    assert status == 0
    assert told.splitlines() == [
        "bands are taken to be those that the model learned from, in this order: b0, b1, b2, b3, b4",
        f"{out}: 30 x 24, classes of pixels, bands b0, b1, b2, b3, b4, by land in float32",
        f"{confidence}: how sure the model is of each class",
        f"{out.with_name('o.stac.json')}: how it was made; geomoe verify checks it",
        f"{picture}: the map with its legend",
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")
    status, told, _ = run(capsys, "verify", out, "--source", src, "--weights", model)
    assert (status, "class" in told) == (0, True)


def test_polygons_and_areas_of_a_map_and_again_without_the_work(
    capsys: pytest.CaptureFixture[str], src: Path, model: Path, tmp_path: Path
) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    out, vectors, sums = (tmp_path / name for name in ("o.tif", "v.gpkg", "s.csv"))
    asked = (
        "predict",
        src,
        out,
        "--model",
        model,
        "--vectors",
        vectors,
        "--class",
        "river",
        "--summary",
        sums,
    )
    status, told, _ = run(capsys, *asked)
    assert status == 0
    count = len(pyogrio.raw.read(vectors)[2])
    assert f"{vectors}: {count} polygon" in told
    with rasterio.open(out) as made:
        river = int((made.read(1) == 2).sum())
    assert pyogrio.raw.read(vectors)[3][2].sum() == river
    assert f",2,river,{river}," in sums.read_text()
    first, was = vectors.read_bytes(), out.stat().st_mtime_ns
    status, _, err = run(capsys, *asked)
    assert (status, "v.gpkg exists; use --overwrite" in err) == (1, True)
    vectors.unlink()
    sums.unlink()
    status, told, _ = run(capsys, *asked)
    assert (status, told.splitlines()[0]) == (0, f"{out}: made before, from this scene by these weights")
    assert out.stat().st_mtime_ns == was
    assert len(vectors.read_bytes()) == len(first)


def test_a_dry_run_says_what_a_map_takes_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], src: Path, model: Path, tmp_path: Path
) -> None:
    before = left_over(tmp_path)
    status, told, _ = run(capsys, "predict", src, tmp_path / "o.tif", "--model", model, "--dry-run")
    assert (status, left_over(tmp_path)) == (0, before)
    assert "input    30 x 24, uint16\noutput   30 x 24, uint8\n" in told


def test_two_dates_become_a_map_of_change_that_verifies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sensors = {"before": 2, "after": 2}
    network = tiny("siamese_unet", bands=4, sensors=sensors, mean=(100.0,), std=(50.0,))
    model = tmp_path / "change.safetensors"
    save(
        model,
        network,
        replace(card_of(network), model="siamese_unet", task="segmentation", radiometry="values"),
    )
    dates = [write_scene(tmp_path / f"{i}.tif", pixels(2, 24, 30, "uint8", seed=i)) for i in (1, 2)]
    before, out = left_over(tmp_path), tmp_path / "o.tif"
    asked = ("predict", dates[0], out, "--after", dates[1], "--model", model)
    status, told, _ = run(capsys, *asked, "--dry-run")
    assert (status, left_over(tmp_path)) == (0, before)
    assert "input    30 x 24, uint8" in told
    status, told, err = run(capsys, *asked, "--summary", tmp_path / "t.csv")
    assert (status, f"{out}: 30 x 24, classes of pixels" in told) == (0, True), err
    status, told, _ = run(
        capsys, "verify", out, "--source", dates[0], "--after", dates[1], "--weights", model
    )
    assert (status, "source      1.tif, 2.tif" in told) == (0, True), told
    assert run(capsys, "verify", out, "--source", dates[1], "--after", dates[0])[0] == 1
    assert run(capsys, "verify", out, "--after", dates[1])[0] == 2
    status, _, err = run(capsys, "predict", dates[0], tmp_path / "p.tif", "--model", model)
    assert (status, "the second date is given by --after" in err) == (1, True)


def _zones(path: Path, west: float) -> Path:
    """Two squares, the second one of which is far away."""
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    boxes = [shapely.box(west, 4176700, west + 100, 4176800), shapely.box(0, 0, 10, 10)]
    pyogrio.raw.write(
        path, shapely.to_wkb(boxes), [], [], geometry_type="Polygon", crs="EPSG:32618", driver="GeoJSON"
    )
    return path


def test_a_dry_run_says_what_would_be_made_of_the_map(
    capsys: pytest.CaptureFixture[str], src: Path, model: Path, tmp_path: Path
) -> None:
    zones, sums = _zones(tmp_path / "zones.geojson", 438800), tmp_path / "t.csv"
    before = left_over(tmp_path)
    asked = ("predict", src, tmp_path / "o.tif", "--model", model, "--dry-run", "--summary", sums, "--zones",
             zones, "--vectors", tmp_path / "v.gpkg", "--class", "river", "--least", 4)  # fmt: skip
    status, told, _ = run(capsys, *asked)
    assert (status, left_over(tmp_path)) == (0, before)
    assert told.splitlines()[-3:] == [
        f"vectors  {tmp_path / 'v.gpkg'}: polygons of river, of 4 pixels or more",
        f"summary  {sums}: classes of 2 zones",
        "nothing was written (--dry-run)",
    ]


@pytest.mark.parametrize("wrong", ["no zones", "elsewhere"])
def test_zones_that_cannot_be_used_are_refused_before_the_map_is_made(
    capsys: pytest.CaptureFixture[str], src: Path, model: Path, tmp_path: Path, wrong: str
) -> None:
    zones = _zones(tmp_path / "zones.geojson", 900000)
    if wrong == "no zones":
        zones.write_text("no zones")
    before = left_over(tmp_path)
    sums = ("--summary", tmp_path / "t.csv", "--zones", zones)
    status, _, err = run(capsys, "predict", src, tmp_path / "o.tif", "--model", model, *sums)
    says = "cannot be read" if wrong == "no zones" else "no zone lies on s.tif"
    assert (status, says in err, len(err.splitlines())) == (1, True, 1)
    assert left_over(tmp_path) == before


def test_each_class_has_a_band_of_probabilities_the_largest_of_which_is_the_confidence(
    capsys: pytest.CaptureFixture[str], src: Path, model: Path, tmp_path: Path
) -> None:
    out, sure, shares = (tmp_path / name for name in ("o.tif", "c.tif", "p.tif"))
    asked = ("predict", src, out, "--model", model, "--confidence", sure, "--probabilities", shares)
    status, told, _ = run(capsys, *asked)
    assert (status, f"{shares}: how probable each class is, a band for each" in told) == (0, True)
    with rasterio.open(out) as made, rasterio.open(sure) as most, rasterio.open(shares) as file:
        classes, found = made.read(1), file.read()
        assert file.descriptions == ("forest", "river", "town")
        assert (file.dtypes[0], file.nodata, file.scales) == ("uint8", 0, (1 / 255,) * 3)
        assert (found.max(0) == most.read(1)).all()
        assert (found[classes - 1, *np.indices(classes.shape)] == found.max(0)).all()
        assert abs(found.sum(0).astype(int) - 255).max() <= 3  # as each is rounded
    assert run(capsys, "verify", shares, "--source", src, "--weights", model)[0] == 0


def test_scenes_of_a_manifest_are_mapped(
    capsys: pytest.CaptureFixture[str],
    src: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = tmp_path / "scenes.csv"
    listed.write_text(f"src,dst\n{src},o.tif\n{src},p.tif\n")
    asked: list[Request] = []

    def cut_off(requests: list[Request], **_: object) -> None:
        asked.extend(requests)
        raise KeyboardInterrupt

    monkeypatch.setattr("geomoe.pipeline.predict_many", cut_off)
    status, _, err = run(capsys, "predict", "--manifest", listed, "--model", model)
    assert (status, len(asked)) == (130, 2), err


def test_a_folder_of_images_becomes_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels(tmp_path)
    (tmp_path / "in").mkdir()
    write_scene(tmp_path / "in" / "a.tif", pixels(3, 16, 16, "uint8"))
    given = ("predict", tmp_path / "in", tmp_path / "t.csv", "--model", tmp_path / "scenes.safetensors")
    status, told, _ = run(capsys, *given)
    assert (status, told) == (0, f"{tmp_path / 't.csv'}: 1 images, by {given[-1]}\n")
    assert (tmp_path / "t.csv").read_text().startswith("image,class,name,confidence")


@pytest.mark.parametrize(
    ("options", "says", "status"),
    [
        (("o.tif",), "Missing option '--model'", 2),
        (("o.tif", "--model", "land", "--conserve"), "no image; leave out --conserve", 1),
        (("o.tif", "--model", "land", "--bands", "b0,b1"), "2 bands of .* were named, the model takes 5", 1),
        (("o.tif", "--model", "land", "--scale", "2"), "gives a map of 3 classes; expected weights", 1),
        (("o.png", "--model", "land"), "a map ends in .tif, a table in .csv or .geojson", 1),
        (("t.csv", "--model", "land", "--fallback"), "--fallback is for maps", 2),
        (("t.csv", "--model", "land"), "gives a map of 3 classes, no row of a table", 1),
        (("t.csv", "--model", "land", "--experts", "e.tif"), "--experts is for maps", 2),
        (("t.csv", "--model", "land", "--picture", "p.png"), "--picture is of one map", 2),
        (("o.tif", "--model", "land", "--picture", "p.gif"), "must end in .png or .pdf", 1),
        (("t.csv", "--model", "land", "--vectors", "v.gpkg"), "--vectors is of one map", 2),
        (("o.tif", "--model", "land", "--vectors", "v.shp"), "must end in .gpkg", 1),
        (("o.tif", "--model", "land", "--summary", "o.tif"), "must end in .csv", 1),
        (("o.tif", "--model", "land", "--least", "3"), "--least is of --vectors", 2),
        (("o.tif", "--model", "land", "--class", "river"), "--class is of --vectors", 2),
        (("o.tif", "--model", "land", "--vectors", "v.gpkg", "--class", "rivr"), "has no class 'rivr'", 1),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_nothing_is_left(
    capsys: pytest.CaptureFixture[str],
    src: Path,
    model: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    says: str,
    status: int,
) -> None:
    before = left_over(tmp_path)
    places = {
        "land": model,
        **{
            name: tmp_path / name
            for name in ("o.tif", "o.png", "t.csv", "e.tif", "p.png", "p.gif", "v.gpkg", "v.shp")
        },
    }
    found, _, err = run(capsys, "predict", src, *(places.get(each, each) for each in options))
    assert found == status
    assert re.search(says, err)
    assert status == 2 or len(err.splitlines()) == 1
    assert left_over(tmp_path) == before


def test_upscale_says_that_classes_are_predicted(
    capsys: pytest.CaptureFixture[str], src: Path, model: Path, tmp_path: Path
) -> None:
    status, _, err = run(capsys, "upscale", src, tmp_path / "o.tif", "--model", model)
    assert status == 1
    assert "land gives a map of 3 classes; expected weights of a model that gives an image" in err


def test_one_of_many_scenes_is_mapped_once(src: Path, model: Path, tmp_path: Path) -> None:
    asked = Request.of(src, tmp_path / "o.tif", model=str(model), scale=None, device="cpu")
    [(request, pin)] = pinned([asked])
    first, again = do_scene(request, pin), do_scene(request, pin)
    assert first.status == "done", first.message
    assert again.status not in ("done", "failed")
    with rasterio.open(tmp_path / "o.tif") as out:
        assert out.dtypes == ("uint8",)
