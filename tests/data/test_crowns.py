"""Crowns as images: what a square shows, which part it is of, and which taxa are left out."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.configs import find_config
from geomoe.data.class_folders import class_names, labelled_files
from geomoe.data.crowns import held_out_stands, make_crowns
from geomoe.data.datasets import find_data_set
from geomoe.evaluation.benchmark import read_benchmark
from geomoe.models.dmrs import likeness
from tests.data.made_plots import crowns, save

PLOTS, PIXELS = 10, 60
COLOURS = {"Acer rubrum L.": 40, "Magnolia sp.": 120, "Pinus taeda L.": 200}


def forest(root, rare=(), bands=3):
    """Plots of 6 m, a crown of 2 m of each taxon in each, at a border or not; the last two lie together.

    The ground is black, and a crown of its taxon's grey; red tells its plot.
    """
    lines = []
    for i in range(PLOTS):
        image = np.zeros((bands, PIXELS, PIXELS), np.uint8)
        for j, (species, grey) in enumerate(COLOURS.items()):
            left, top = 20 * j, 0 if i % 2 else 25
            image[:, top : top + 20, left : left + 20] = grey
            image[0, top : top + 20, left : left + 20] = 20 * i
            lines.append([f"A_{i}", "A", f"{i}{j}", species, left, top, left + 20, top + 20])
        east = 100 * i if i < PLOTS - 1 else 100 * (i - 1) + 7
        save(root / "rgb" / f"A_{i}.tif", image, east, 5000, None, side=0.1)
    return crowns(root, [*lines, *rare])


def made(tmp_path, rare=()):
    said = make_crowns(tmp_path / "made", forest(tmp_path, rare))
    return tmp_path / "made", said


def test_a_square_is_the_crown_and_nothing_that_nobody_saw(tmp_path):
    flat = ["A_0", "A", "x", "Pinus taeda L.", 40, 0, 60, 10]  # its square would begin 50 cm above the plot
    root, _ = made(tmp_path, [flat])
    assert class_names(root) == ("Acer rubrum", "Magnolia sp", "Pinus taeda")
    for species, grey in zip(class_names(root), COLOURS.values(), strict=True):
        for path in (root / species).glob("*.png"):
            with Image.open(path) as image:
                assert (image.mode, image.size) == ("RGB", (64, 64))
                pixels = np.asarray(image)
            if "_0030_" in path.name:
                # By hand: rows 0 to 20 of the plot, in which the crown of 2 m begins at 25.
                assert not pixels.any()
                continue
            plot = int(path.stem[-1])
            assert (pixels[8:-8, 8:-8] == (20 * plot, grey, grey)).all()  # less what is interpolated


def test_no_stand_is_in_two_parts(tmp_path):
    root, said = made(tmp_path)
    assert find_data_set(root).name == "crowns"
    plots = {}
    for part in ("fit", "validation", "test"):
        plots[part] = {one.name.split("_crown_")[1][5:-4] for one in labelled_files(root, part)}
    assert plots["test"].isdisjoint(plots["fit"] | plots["validation"])
    assert {"A_8", "A_9"} <= plots["test"] or {"A_8", "A_9"}.isdisjoint(plots["test"])
    numbers = {part: len(labelled_files(root, part)) for part in ("train", "test")}
    assert sum(numbers.values()) == 3 * PLOTS
    assert said.startswith(f"3 taxa, {numbers['train']} crowns to train on, {numbers['test']} to test on;")


def test_taxa_that_cannot_be_in_both_parts_are_left_out(tmp_path):
    rare = [["A_3", "A", str(i), "Nyssa biflora Walter", 10 * i, 40, 10 * i + 10, 50] for i in range(6)]
    nameless = ["A_4", "A", "y", "", 0, 0, 10, 10]
    root, said = made(tmp_path, [*rare, nameless])  # six crowns of one stand
    assert said.endswith("to test on: Nyssa biflora (6); and 1 crown of no taxon")
    assert "Nyssa biflora" not in class_names(root)


def test_of_all_draws_the_one_that_keeps_most_taxa_is_taken():
    counts = np.zeros((10, 4), int)
    counts[:, 0] = 9
    for taxon, stands in ((1, (0, 1)), (2, (2, 3)), (3, (4, 5))):  # so one of each two stands is held out
        counts[stands, taxon] = 2
    for seed in range(3):
        held_out = held_out_stands(counts, np.random.default_rng(seed))
        assert held_out.sum() == 3
        assert [held_out[i : i + 2].sum() for i in (0, 2, 4)] == [1, 1, 1]


def test_what_cannot_be_used_is_said_and_nothing_is_left(tmp_path, capsys):
    out = tmp_path / "made"
    source = forest(tmp_path, [["A_0", "A", "x", "Pinus taeda L.", 0, 90, 20, 160]])
    with pytest.raises(GeomoeError, match=r"A_0\.tif: a crown of x has its middle outside of it"):
        make_crowns(out, source)
    with pytest.raises(GeomoeError, match="is no image of red, green and blue"):
        make_crowns(out, forest(tmp_path, bands=2))
    crowns(tmp_path, [["A_0", "A", "x", "Pinus taeda L.", 0, 0, 20, 20]])
    with pytest.raises(GeomoeError, match="fewer than two taxa"):
        make_crowns(out, tmp_path)
    lines = [["A_0", "A", "x", species, 0, 0, 20, 20] for species in COLOURS]
    forest(tmp_path)
    crowns(tmp_path, lines)
    with pytest.raises(GeomoeError, match="fewer than two taxa with 2 crowns for each part"):
        make_crowns(out, tmp_path)
    assert not [path for path in tmp_path.iterdir() if "made" in path.name]


def test_the_command_says_what_it_made(tmp_path, capsys):
    source = forest(tmp_path)
    main(["data", str(tmp_path / "made"), "--make", "crowns", "--of", str(source)])
    said = capsys.readouterr().out
    assert "3 taxa, " in said
    assert "CC BY 4.0" in said
    for options, wanted in (
        (["--make", "crowns"], "give what it is made of"),
        (["--make", "crowns", "--of", str(source)], "is there already"),
        (["--make", "crowns", "--of", str(tmp_path / "made")], "crowns.csv cannot be read"),
    ):
        with pytest.raises(SystemExit, match="1"):
            main(["data", str(tmp_path / "made"), *options])
        assert wanted in capsys.readouterr().err


def test_the_benchmark_and_the_configuration_say_the_same_of_taxa():
    arms = {arm.name: arm for arm in read_benchmark(find_config("crowns", "benchmarks")).arms}
    said = arms["dmrs"].options["semantics"]
    config = yaml.safe_load(Path(find_config("crowns_dmrs", "classification")).read_text())
    assert config["model"]["init_args"]["options"]["semantics"] == said
    assert arms["one_adapter"].options == {"semantics": said, "twin": "parameters"}
    assert {"forest", "balanced_forest"} <= {name for name, arm in arms.items() if arm.features}
    assert len(said) == 19
    alike = likeness(tuple(said), said)
    names = list(said)
    near = alike[names.index("Quercus alba")].topk(2).indices.tolist()
    assert {names[i] for i in near} == {"Quercus alba", "Quercus montana"}  # the white oaks
