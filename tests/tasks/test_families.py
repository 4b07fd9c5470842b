"""A task of one's own: by registration alone it is trained, resumed, saved and scored by the commands."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError, R2Score

import geomoe
from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.labels import LabelBatches, LabelStream
from geomoe.evaluation.evaluators import EVALUATORS, Evaluator, evaluator
from geomoe.metrics.measures import MEASURES, Measure
from geomoe.models import load, registry
from geomoe.models.contract import Input, ModelContract, Output
from geomoe.models.options import ModelConfig
from geomoe.models.registry import register as register_model
from geomoe.tasks import families
from geomoe.tasks.fit import fit
from geomoe.tasks.stream import Named, StreamData
from geomoe.tasks.task import Task


@dataclass(frozen=True)
class MeterConfig(ModelConfig):
    width: int = 8


class Meter(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(3, config.width), nn.GELU(), nn.Linear(config.width, 1))
        self.contract = ModelContract({"image": Input(3)}, {"values": Output("values", 1)})

    def forward(self, x, trace=None):
        return self.layers(x.mean((2, 3)))[:, 0]


class Brightness(Task):
    family, monitor, base = "brightness", "mae", "the middle"
    LOSSES = {"l1": F.l1_loss}  # noqa: RUF012

    def __init__(self, model: str = "meter", **recipe):
        super().__init__(model, {}, **recipe)

    def truth(self, batch):
        return batch["label"]

    def metrics(self):
        return MetricCollection({"mae": MeanAbsoluteError(), "r2": R2Score()})

    def by_item(self, answer, batch):
        return {"mae": (answer - batch["label"]).abs()}

    def baseline(self, batch):
        return torch.full_like(batch["label"], 0.5)


def made(seed, count=40):
    images = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(seed)).expand(-1, -1, 4, 4)
    return images, images.amax((1, 2, 3))


class BrightnessData(StreamData):
    def __init__(self, root: str = "", **stream):
        super().__init__(**stream)

    def stream(self, start, length, rank, world):
        return LabelStream(*made(0), self.seed, start, length, rank, world)

    def held_out(self, rank, world):
        return LabelBatches(*made(1), 8, rank, world)

    def describe(self, source=""):
        return {"source": source}

    @classmethod
    def named(cls, root, part, weights, **how):
        pairs = zip(*made(2), strict=True)
        return Named("made", [(f"{i}", {"image": x, "label": y}) for i, (x, y) in enumerate(pairs)])


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_model("meter", Meter, MeterConfig, gives="values")
    families.register(Brightness, BrightnessData)
    MEASURES["mae"] = Measure("MAE", best="min")
    yield
    del registry._ENTRIES["meter"], families.FAMILIES["brightness"], MEASURES["mae"]


def train(out, *more):
    fit(
        [
            f"--model={__name__}.Brightness", f"--data={__name__}.BrightnessData", "--data.batch_size=16",
            "--data.steps_per_epoch=20", "--model.learning_rate=1e-2", f"--checkpoint.dirpath={out}",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", "--ema.decay=0.5", *more,
        ]
    )  # fmt: skip


def test_a_task_of_ones_own_goes_through_fit_evaluate_and_predict(tmp_path, capsys):
    train(tmp_path / "whole", "--trainer.max_steps=80", "--weights.source=made here")
    weights = tmp_path / "whole" / "best.safetensors"
    card = load(str(weights)).card
    assert (card.task, card.data["source"]) == ("brightness", "made here")
    assert card.scores["mae"] < 0.12
    assert card.scores["gain"] > 0.1, "less is better, and a gain is an improvement"
    assert "over the middle" in capsys.readouterr().err
    main(["evaluate", "--model", str(weights), "--data", str(tmp_path), "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    assert found["overall"]["items"] == 40
    low, high = found["interval_95"]
    assert low < found["overall"]["scores"]["mae"] < high
    assert found["overall"]["gain"] > 0.1
    assert found["by_class"] == {}
    main(["picture", str(tmp_path), "--model", str(weights), "-o", str(tmp_path / "p.png"), "--json"])
    drawn = json.loads(capsys.readouterr().out)["samples"]
    assert len(drawn) == 12
    for of in drawn.values():
        answer = of["answers"]["best"]
        error = abs(answer["values"][0] - float(of["truth"]))
        assert error == pytest.approx(answer["scores"]["mae"], abs=1e-3)
    (tmp_path / "images").mkdir()
    shades = {"dark": (20, 30, 40), "light": (90, 220, 60)}
    for (name, shade), size in zip(shades.items(), ((4, 4), (9, 6)), strict=True):
        Image.new("RGB", size, shade).save(tmp_path / "images" / f"{name}.png")
    main(["predict", str(tmp_path / "images"), str(tmp_path / "t.csv"), "--model", str(weights)])
    header, *rows = (tmp_path / "t.csv").read_text().splitlines()
    assert header == "image,value_1"
    for row, (name, shade) in zip(rows, shades.items(), strict=True):
        image, value = row.split(",")
        assert image == f"{name}.png"
        assert abs(float(value) - max(shade) / 255) < 0.3


def test_best_is_the_least_where_less_is_better(tmp_path):
    train(tmp_path / "worse", "--trainer.max_steps=40", "--ema.decay=0.0", "--model.learning_rate=1e-2")
    best, last = (load(str(tmp_path / "worse" / f"{name}.safetensors")).card for name in ("best", "last"))
    assert best.scores["mae"] <= last.scores["mae"]


def test_the_same_task_is_resumed(tmp_path):
    train(tmp_path / "whole", "--trainer.max_steps=60")
    train(tmp_path / "cut", "--trainer.max_steps=60", "--trainer.callbacks+=EarlyStopping",
          "--trainer.callbacks.monitor=val/r2", "--trainer.callbacks.mode=max",
          "--trainer.callbacks.stopping_threshold=-1e9")  # fmt: skip
    train(tmp_path / "cut", "--trainer.max_steps=60", f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    assert len({load(str(tmp_path / run / "last.safetensors")).hash for run in ("whole", "cut")}) == 1


class Dimmed(Evaluator):
    """Of brightness, with an option of its own."""

    def evaluate(self, model, root, *, dim=1.0, **options):
        return dim


def test_a_family_may_bring_an_evaluator_of_its_own(monkeypatch, tmp_path):
    of = SimpleNamespace(name="mine", card=SimpleNamespace(task="brightness"))
    with pytest.raises(GeomoeError, match="mine is of brightness, which has no dim"):
        geomoe.evaluate(of, tmp_path, dim=0.5)
    monkeypatch.setitem(EVALUATORS, "brightness", f"{__name__}:Dimmed")
    assert geomoe.evaluate(of, tmp_path, dim=0.5) == 0.5
    assert type(evaluator("classification")) is Evaluator


def test_a_task_that_nobody_registered_is_named():
    with pytest.raises(GeomoeError, match=r"no task is called 'mine'; there are: .*super_resolution"):
        families.family("mine")
