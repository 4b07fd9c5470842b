"""Made radar targets: what each radar sees, and how a folder says which one saw nothing."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.class_folders import class_names, labelled_files
from geomoe.data.datasets import DATA_SETS, find_data_set
from geomoe.data.radar import LOUD, NOISY_TARGETS, RADARS, TARGETS, make_radar, noise_of, radar_sample


def sample(target=0, seed=0, noise=None):
    return radar_sample(target, np.random.default_rng(seed), noise)


def times(values):
    """``[times, frequencies]`` of the squares that hold them."""
    return values[2].reshape(4, 4, 4, 4).swapaxes(1, 2).reshape(16, 16)


def test_a_body_is_most_like_itself():
    means = [np.mean([sample(target, seed)[1] for seed in range(40)], 0) for target in range(len(TARGETS))]
    for target in range(len(TARGETS)):
        new = np.mean([sample(target, seed)[1] for seed in range(100, 110)], 0)
        likeness = [np.corrcoef(new.ravel(), mean.ravel())[0, 1] for mean in means]
        assert int(np.argmax(likeness)) == target


def test_one_radar_alone_sees_nothing():
    for place, radar in enumerate(RADARS):
        mean = np.mean([sample(2, seed, radar) for seed in range(300)], 0)
        strongest = np.abs(mean).reshape(3, -1).max(1)
        assert strongest[place] < 0.12 < 0.2 < min(np.delete(strongest, place))
        alone = np.stack([sample(2, seed, radar)[place] for seed in range(50)])
        assert alone.std() == pytest.approx(0.4, rel=0.1)


def test_a_square_is_four_bins_or_a_time():
    values = sample(3)
    assert all(np.array_equal(values[0][row], values[0][row // 4 * 4]) for row in range(16))
    # The line of the slowest swing moves by a few frequencies from one time to the next, and back.
    steps = [np.abs(np.diff(times(sample(0, seed)).argmax(1))).max() for seed in range(10)]
    assert max(steps) <= 4


def test_bodies_swing_at_rates_of_their_own():
    def swings(target):
        places = np.stack([times(sample(target, seed)).argmax(1) for seed in range(40)]) - 7.5
        return np.abs(np.fft.rfft(places, axis=1)).mean(0)[1:].argmax() + 1

    assert [swings(target) for target in (0, 2, 4)] == [1, 2, 3]


def test_a_folder_is_known_and_has_its_split(tmp_path, capsys):
    make_radar(tmp_path / "made", train=240, test=60)
    assert find_data_set(tmp_path / "made").name == "radar_targets"
    parts = {part: labelled_files(tmp_path / "made", part) for part in ("train", "fit", "validation", "test")}
    assert {part: len(files) for part, files in parts.items()} == {
        "train": 240, "fit": 228, "validation": 12, "test": 60
    }  # fmt: skip
    assert set(Counter(one.label for one in parts["test"]).values()) == {10}
    noisy = Counter(noise_of(one.name) for one in parts["train"])
    assert noisy.keys() == {None, *RADARS}
    assert 0.12 < 1 - noisy[None] / 240 < 0.28
    with Image.open(parts["fit"][0].path) as image:
        assert (image.mode, image.size) == ("RGB", (16, 16))


def test_the_same_seed_makes_the_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_radar(tmp_path / name, train=6, test=6, seed=seed)
    a, b, c = ({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.png")} for name in "abc")
    assert a == b != c


def test_louder_noise_hides_the_same_bodies(tmp_path):
    quiet, loud = (radar_sample(1, np.random.default_rng(0), "isar", by) for by in (1.0, LOUD))
    assert np.allclose(loud[1], LOUD * quiet[1], atol=1e-5)  # noise alone
    echo = quiet[0] - (loud[0] - quiet[0]) / (LOUD - 1)  # without its noise
    assert echo.min() > -1e-5
    assert echo.max() > 0.3

    DATA_SETS["noisy_radar_targets"].make(tmp_path / "made", train=24, test=12)
    assert find_data_set(tmp_path / "made").name == "noisy_radar_targets"
    assert class_names(tmp_path / "made") == NOISY_TARGETS
    parts = {part: len(labelled_files(tmp_path / "made", part)) for part in ("train", "test")}
    assert parts == {"train": 24, "test": 12}
    make_radar(tmp_path / "quiet", train=24, test=12)
    ours, others = (
        np.stack(
            [np.asarray(Image.open(path), np.float32) for path in sorted((tmp_path / name).rglob("*.png"))]
        )
        for name in ("made", "quiet")
    )
    # As many steps of the file are a deviation of the noise, and the bodies stand out of it the less.
    assert 0.2 < (ours.mean() - 95.6) / (others.mean() - 95.6) < 0.3


def test_the_command_makes_it_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("geomoe.data.radar._TRAIN", 12)
    for wrong, said in (
        (["--make", "moon", str(tmp_path / "x")], "radar_targets"),
        (["--make", "radar_targets"], "give a new folder"),
        (["--make", "radar_targets", str(tmp_path)], "is there already"),
        (["--make", "radar_targets", "--leakage", str(tmp_path)], "choose one"),
    ):
        with pytest.raises(SystemExit):
            main(["data", *wrong])
        assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(GeomoeError, match="No space left"):
        make_radar(tmp_path / "made", train=6, test=6)
    assert not list(tmp_path.iterdir())
