"""Super-resolution is asked for samples and scores of each as every other task is."""

import numpy as np
import pytest
import torch
from PIL import Image

import geomoe
from geomoe import GeomoeError
from geomoe.audit.subject import Subject
from geomoe.data.images import read_image
from geomoe.evaluation.samples import batches, evaluate_samples
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.layers.super_resolution.known import Known
from geomoe.moe.plan import RoutingTrace
from geomoe.tasks.super_resolution_data import SuperResolutionData

SIZES = {"a/1": (40, 32), "a/2": (40, 32), "b/3": (36, 33), "b/4": (40, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        path = root / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture(scope="module")
def plain():
    return geomoe.load("mfg_hmoe_light", 2)


def test_scores_of_samples_are_those_of_the_evaluation(folder, plain):
    samples, images = evaluate_samples(plain, folder), evaluate(plain, folder)
    assert samples.by_item.keys() == images.by_item.keys()
    for name, scores in images.by_item.items():
        assert samples.by_item[name] == pytest.approx(scores, abs=1e-4)
    for found, wanted in (
        (samples.overall.values, images.overall.values),
        (samples.overall.baseline, images.overall.baseline),
    ):
        assert found == pytest.approx(wanted, abs=1e-4)
    assert (samples.ranks, samples.base) == ("psnr", "bicubic")


def test_the_degradation_is_a_choice(folder, plain):
    first = [
        SuperResolutionData.named(folder, "test", plain, **how).samples[0][1]["image"]
        for how in ({}, {"degradation": "bilinear"}, {"degradation": "mtf"})
    ]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    with pytest.raises(GeomoeError, match="holds no pairs that were measured"):
        SuperResolutionData.named(folder, "test", plain, degradation="real")


def test_what_is_random_is_drawn_alike_every_time(folder, plain):
    samples = SuperResolutionData.named(folder, "test", plain, degradation="mtf_noise").samples
    assert torch.equal(samples[2][1]["image"], samples[1:][1][1]["image"])


def test_images_are_read_when_they_are_asked_for(folder, plain, monkeypatch):
    samples = SuperResolutionData.named(folder, "test", plain).samples
    read = []
    monkeypatch.setattr(
        "geomoe.data.super_resolution.named.read_image",
        lambda path, bands: read.append(path.stem) or read_image(path, bands),
    )
    assert len(samples) == 4
    assert read == []
    found = batches(samples)
    next(found)
    assert read == ["1", "2", "3"], "two of one size, and the one that is of another"


def test_batches_hold_what_is_of_one_size(folder, plain):
    names = [names for names, _ in batches(SuperResolutionData.named(folder, "test", plain).samples)]
    assert names == [["a/1.png", "a/2.png"], ["b/3.png"], ["b/4.png"]]
    large = [(f"{i}", {"image": torch.zeros(3, 300, 300)}) for i in range(6)]
    assert [len(names) for names, _ in batches(large)] == [2, 2, 2]
    huge = [(f"{i}", {"image": torch.zeros(1, 600, 600)}) for i in range(2)]
    assert [len(names) for names, _ in batches(huge)] == [1, 1]


def test_informed_models_are_told_how_the_image_was_made(folder, plain):
    informed = geomoe.load("mfg_hmoe_light_satellites", 2)
    _, sample = SuperResolutionData.named(folder, "test", informed).samples[0]
    assert sample["known"].tolist() == pytest.approx(Known(kernel="bilinear", noise=0.0).encoded())
    assert "known" not in SuperResolutionData.named(folder, "test", plain).samples[0][1]


def test_an_audit_takes_super_resolution(folder):
    informed = geomoe.load("mfg_hmoe_light_satellites", 2)
    subject = Subject(informed, SuperResolutionData.named(folder, "test", informed))
    [names, batch], *_ = subject.batches()
    answer = subject.answer(batch, trace := RoutingTrace())
    assert len(trace) > 0
    assert subject.scores(answer, batch)[subject.task.monitor].shape == (len(names),)
    assert answer.shape == batch["target"].shape
