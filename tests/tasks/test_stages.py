"""Trainings in stages: what learns when, by which losses, and the same whether it was interrupted or not."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geomoe import GeomoeError
from geomoe.models import load, registry
from geomoe.models.contract import Input, ModelContract, Output
from geomoe.models.options import ClassConfig
from geomoe.models.registry import list_models, register
from geomoe.models.stages import Stage, stages_of, train_parts
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.classification import Classification
from geomoe.tasks.muon import Muon
from geomoe.tasks.stages import Stages, read_stages
from tests.models.sizes import tiny
from tests.tasks.test_classification import classes, train


class Scale(nn.Module):
    """Learns colours, then a head by another loss that divides them by what it saw of the samples."""

    stages = (Stage("colours", 1, ("blocks",)), Stage("head", 2, ("head",), {"own": 1.0}))
    objectives = {"own": lambda answers, truth: -answers["logits"].log_softmax(1)[:, truth].mean()}  # noqa: RUF012

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))])
        self.head = nn.Linear(4, len(config.classes))
        self.register_buffer("spread", torch.ones(4))
        self.register_buffer("begun", torch.zeros(2))

    @property
    def contract(self):
        names = self.config.classes
        return ModelContract({"image": Input(3)}, {"label": Output("label", len(names), classes=names)})

    def begin(self, stage, batches):
        self.begun[[one.name for one in self.stages].index(stage)] += 1
        if stage == "head":
            seen = [self.blocks[0](x.mean((2, 3))) for x, _, _ in batches]
            self.spread.copy_(torch.cat(seen).std(0))

    def answers(self, x, trace=None):
        return {"logits": self.head(self.blocks[0](x.mean((2, 3))) / self.spread)}

    def forward(self, x, trace=None):
        return self.answers(x)["logits"]


@dataclass(frozen=True)
class ScaleConfig(ClassConfig):
    pass


@pytest.fixture(scope="module", autouse=True)
def registered():
    register("scale", Scale, ScaleConfig, gives="label")
    yield
    del registry._ENTRIES["scale"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return classes(tmp_path_factory.mktemp("classes"))


def scale():
    torch.manual_seed(0)
    return Scale(ScaleConfig(classes=("a", "b", "c")))


def test_what_a_stage_does_not_train_rests_whatever_the_optimiser_remembers():
    for make in (
        lambda model: torch.optim.Adam(model.parameters(), 0.1),
        lambda model: Muon(model.parameters(), [model.blocks[0][0].weight], 0.1),
    ):
        model = scale()
        names, optimizer = [name for name, _ in model.named_parameters()], make(model)
        moved = {}
        for part in ((), ("head",), ("blocks",)):
            train_parts(model, part, names)
            before = {name: value.clone() for name, value in model.state_dict().items()}
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.rand(8, 3, 2, 2)).square().sum().backward()
                optimizer.step()
            after = model.state_dict()
            moved[part] = {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}
        assert moved == {(): {"blocks", "head"}, ("head",): {"head"}, ("blocks",): {"blocks"}}


def test_a_parameter_that_the_model_freezes_never_learns():
    model = scale()
    model.blocks[0][0].bias.requires_grad_(False)
    stages = Stages(model, model.stages)
    stages.share_out(3)
    stages.enter(0, lambda: iter(()))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"blocks.0.0.weight", "blocks.0.1.weight", "blocks.0.1.bias"}


def test_steps_are_shared_out_and_each_stage_has_some():
    stages = Stages(scale(), [Stage("a", 1), Stage("b", 0.001), Stage("c", 3)])
    stages.share_out(40)
    assert [stages.limits(step) for step in (0, 9, 10, 11, 39, 40)] == [
        (0, 10), (0, 10), (10, 11), (11, 40), (11, 40), (11, 40)
    ]  # fmt: skip
    assert [stages.last(step) for step in (10, 11)] == [False, True]
    stages.share_out(3)
    assert [stages.limits(step) for step in (0, 1, 2)] == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(GeomoeError, match="2 steps are fewer than the 3 stages"):
        stages.share_out(2)


def test_a_stage_may_learn_at_a_rate_of_its_own():
    task = Classification(
        model="scale", learning_rate=0.5, milestones=(), classes=("a", "b"),
        stages=[{"name": "a", "share": 1}, {"name": "b", "share": 1, "rate": 0.1}],
    )  # fmt: skip
    task._trainer = SimpleNamespace(estimated_stepping_batches=8)
    (factor,) = task.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas
    assert [factor(step) for step in (0, 3, 4, 7)] == [1, 1, 0.1, 0.1]


def test_a_training_goes_through_its_stages(folder, tmp_path, capsys, monkeypatch):
    shares = []
    monkeypatch.setattr(Scale, "progress", lambda self, share: shares.append(share), raising=False)
    train(folder, tmp_path, "--model.model=scale", "--model.options={}", steps=12)
    assert shares == [0, 1 / 4, 1 / 2, 3 / 4, *(step / 8 for step in range(8))]
    said = [line for line in capsys.readouterr().err.splitlines() if "stage" in line]
    assert said == ["geomoe: stage colours, steps 1 to 4", "geomoe: stage head, steps 5 to 12"]
    weights = load(str(tmp_path / "best.safetensors"))
    assert weights.card.recipe["steps"] > 4, "the best weights are of the last stage"
    assert weights.model.begun.tolist() == [1, 1]
    assert (weights.model.spread != 1).all(), "what a stage found is in the weights"
    stages = weights.card.recipe["stages"]
    assert [(one["name"], one["trains"], one["losses"]) for one in stages] == [
        ("colours", ["blocks"], None), ("head", ["head"], {"own": 1.0})
    ]  # fmt: skip


def test_what_rests_is_in_the_average_as_the_last_stage_found_it(folder, tmp_path):
    train(folder, tmp_path, "--model.model=scale", "--model.options={}", "--ema.decay=0.9", steps=12)
    held = read_checkpoint(tmp_path / "last.ckpt")
    latest, average = (
        {name.removeprefix("model."): value for name, value in held[key].items()}
        for key in ("current_model_state", "state_dict")
    )
    names = {name for name in latest if torch.equal(latest[name], average[name])}
    assert {name for name in latest if name.startswith("blocks.0.0")} <= names
    assert "head.weight" not in names


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [4, 6])
def test_a_resumed_run_lands_where_an_uninterrupted_one_does(folder, tmp_path, epoch):
    """Interrupted where a stage begins, and within one."""
    shape = ("--model.model=scale", "--model.options={}", f"--data.steps_per_epoch={epoch}")
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    train(folder, tmp_path / "whole", *shape)
    train(folder, tmp_path / "cut", *shape, *stop)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == epoch
    train(folder, tmp_path / "cut", *shape, f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / name / "last.safetensors")) for name in ("whole", "cut"))
    assert cut.model.begun.tolist() == [1, 1]
    assert whole.hash == cut.hash


@pytest.mark.slow
def test_a_configuration_may_train_any_model_in_stages(folder, tmp_path):
    """Decoupled training (Kang et al. 2020): features first, then the head alone."""
    stages = "[{name: features, share: 1}, {name: head, share: 2, trains: [head], losses: {smoothed: 1.0}}]"
    train(folder, tmp_path, f"--model.stages={stages}", "--ema.decay=0")
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    steps = {int(state["step"]) for state in checkpoint["optimizer_states"][0]["state"].values()}
    assert steps == {4, 12}


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"name": "a", "share": 0}], "stage a: share=0: expected a number above 0"),
        ([{"name": "a", "share": 1, "rate": 0}], "stage a: rate=0: expected a number above 0"),
        ([{"name": "a", "share": 1}, {"name": "a", "share": 1}], "a, a: expected each name once"),
        ([{"name": "a", "share": 1, "trains": ["tail"]}], "stage a: Scale has nothing to learn in 'tail'"),
        (
            [{"name": "a", "share": 1, "trains": "head"}],
            r"trains='head': expected a list of parts, as \[head\]",
        ),
        ([{"name": "a"}], "missing 1 required positional argument: 'share'"),
    ],
)
def test_what_is_no_stage_is_said_in_a_line(stages, said):
    with pytest.raises(GeomoeError, match=f"model.stages: .*{said}"):
        read_stages(stages, scale())
    assert stages_of(nn.Linear(1, 1)) == ()


@pytest.mark.parametrize("name", sorted({*list_models("label"), *list_models("classes")} - {"scale"}))
def test_the_stages_of_every_model_are_stages(name):
    assert all(isinstance(stage, Stage) for stage in stages_of(tiny(name)))
