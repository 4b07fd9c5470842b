"""Routing references of weights that are not of super-resolution."""

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.evaluation.calibrate import calibrate, shown_rows
from geomoe.models import LoadedModel, load
from geomoe.models.reference import RoutingReference
from geomoe.models.registry import build
from geomoe.models.weights import Card, save

CLASSES = ("field", "sea")
TINY = {"classes": CLASSES, "embed_dim": 8, "depth": 2, "heads": 2, "patch": 4, "experts": 2}


def card_of(model, task, **said):
    plain = {"config": {}, "radiometry": "unit", "data": {}, "degradation": "", "recipe": {}}
    rest = {"protocol": task, "scores": {}, "commit": "", "date": "2026-01-01", "licence": "Apache-2.0"}
    return Card(model=model, task=task, **{**plain, **rest, **said})


def weights(folder, name="vmoe_ti", **options):
    model = build(name, {**TINY, **options})
    data = {"classes": dict.fromkeys(CLASSES, 20)}
    card = card_of(name, "classification", config=vars(model.config), data=data, recipe={"size": 16})
    save(folder / "tiny.safetensors", model, card)
    return folder / "tiny.safetensors"


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(26):
            values = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_what_a_router_of_labels_saw_is_on_the_card(data, tmp_path):
    card = calibrate(weights(tmp_path), tmp_path / "told.safetensors", data, quantile=0.9)
    assert "samples kept to validate on" in card.reference["data"]
    assert load(str(tmp_path / "told.safetensors")).card.reference == card.reference
    reference = RoutingReference.from_card(card.reference)
    rows = shown_rows(load(str(tmp_path / "tiny.safetensors")), torch.rand(3, 16, 16))
    assert (reference.ood_score(rows) < reference.ood_score(rows + 10)).all()


def test_a_network_that_routes_nothing_has_nothing_to_be_calibrated(data, tmp_path):
    with pytest.raises(GeomoeError, match="routes nothing"):
        calibrate(weights(tmp_path, "vit_ti"), tmp_path / "told.safetensors", data)


def test_pixels_that_are_not_there_give_no_row():
    model = build("unet_spatial_moe", {"classes": CLASSES, "width": 4, "depth": 1, "experts": 2})
    valid = torch.zeros(8, 8, dtype=torch.bool)
    valid[:4] = True
    card = card_of("unet_spatial_moe", "segmentation")
    found = shown_rows(LoadedModel("tiny", model, card), torch.rand(3, 8, 8), valid=valid)
    assert len(found) == 32


def test_a_folder_of_too_few_samples_is_told(data, tmp_path):
    for name in CLASSES:
        for number in range(2, 26):
            (data / name / f"{number}.png").unlink()
    with pytest.raises(GeomoeError, match="holds 2 samples to train on and 0 kept to validate on"):
        calibrate(weights(tmp_path), tmp_path / "told.safetensors", data)
