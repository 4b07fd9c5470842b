import shutil
import signal
import warnings

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.configs import shipped
from geomoe.models import load
from geomoe.models.registry import build
from geomoe.tasks.fit import fit
from geomoe.tasks.super_resolution import SuperResolution
from geomoe.tasks.super_resolution_data import SuperResolutionData
from geomoe.tasks.task import learning_rate_factor

MODEL = (
    "{embed_dim: 8, depths: [1, 1], heads: 2, window: 4, squeeze: 4, width: 4, expert_width: 4, "
    "router_width: 4, experts_per_group: 2}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(4):
        smooth = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize((48, 48), Image.Resampling.BICUBIC).save(root / f"{i}.png")
    return root


def train(folder, out, *more):
    fit(
        [
            f"--data.root={folder}", "--data.scale=2", "--data.patch_size=8", "--data.batch_size=2",
            "--data.steps_per_epoch=3", "--trainer.max_steps=12",
            f"--model.options={MODEL}", "--model.learning_rate=1e-3", "--model.schedule=cosine",
            f"--checkpoint.dirpath={out}", f"--trainer.logger.init_args.save_dir={out}",
            f"--trainer.default_root_dir={out}", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", *more,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A folder with what training wrote by all defaults; to be copied, and left as it is."""
    out = tmp_path_factory.mktemp("trained")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(folder, out)
    return out


@pytest.fixture(scope="module")
def still(folder, tmp_path_factory):
    """Weights that are the mean of a training and no step of it: as they were at first."""
    out = tmp_path_factory.mktemp("still")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(folder, out, "--ema.decay=1.0")
    return out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("balance", "optimizer"), [pytest.param("switch", "adam", marks=pytest.mark.slow), ("bias", "muon")]
)
def test_a_resumed_run_ends_with_the_same_numbers(folder, tmp_path, balance, optimizer):
    """With stochastic depth, balance and the moving average, at another state of the generator."""
    options = (f"--model.balance={balance}", f"--model.optimizer={optimizer}")
    options += ("--model.options.drop_path=0.5", "--seed_everything=3")
    train(folder, tmp_path / "whole", *options)
    torch.rand(7)
    train(
        folder, tmp_path / "cut", *options, "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/psnr", "--trainer.callbacks.mode=max",
        "--trainer.callbacks.stopping_threshold=0",
    )  # fmt: skip
    assert load(str(tmp_path / "cut" / "last.safetensors")).card.recipe["steps"] == 3
    train(folder, tmp_path / "cut", *options, f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / run / "last.safetensors")) for run in ("whole", "cut"))
    assert whole.hash == cut.hash
    assert whole.card.recipe["steps"] == cut.card.recipe["steps"] == 12
    assert whole.card.recipe["optimiser"].lower() == optimizer
    assert whole.card.scores["scored"] == "validation"


def test_routing_health_is_logged(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(next(trained.rglob("events.*")).parent))
    log.Reload()
    names = set(log.Tags()["scalars"])
    assert {
        "train/l1", "val/psnr", "val/ssim", "val/gain", "routing/router_gradient_norm",
        "routing/0/load_entropy", "routing/0/dead_experts", "routing/0/load_3",
    } <= names  # fmt: skip
    assert all(event.value > 0 for event in log.Scalars("routing/router_gradient_norm"))
    assert sum(log.Scalars(f"routing/0/load_{e}")[0].value for e in range(4)) == pytest.approx(1)
    assert {"routing/0/experts", "routing/0/usage"} <= set(log.Tags()["images"])


@pytest.mark.filterwarnings("ignore")
def test_the_weights_written_are_the_averaged_ones(folder, still, tmp_path):
    train(folder, tmp_path, "--ema.decay=0.0")
    first, last = (load(str(run / "last.safetensors")) for run in (still, tmp_path))
    assert first.hash != last.hash
    assert first.card.recipe["ema_decay"] == 1
    raw = torch.load(still / "last.ckpt", weights_only=True)["current_model_state"]
    trained = {name.removeprefix("model."): value for name, value in raw.items()}
    assert all(torch.equal(value, trained[name]) for name, value in last.model.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_a_short_run_forgets_the_weights_it_started_from(folder, still, tmp_path):
    train(folder, tmp_path, "--ema.decay=0.999")
    start, average = (load(str(run / "last.safetensors")) for run in (still, tmp_path))
    raw = torch.load(tmp_path / "last.ckpt", weights_only=True)["current_model_state"]
    share = [
        ((mean - trained).norm() / (mean - first).norm()).item()
        for (name, mean), first in zip(
            average.model.state_dict().items(), start.model.state_dict().values(), strict=True
        )
        if (trained := raw[f"model.{name}"]).is_floating_point() and not torch.equal(mean, first)
    ]
    # 0.999 from the first step on would leave 99 % of the start after 12 steps.
    assert len(share) > 10
    assert max(share) < 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kernels", [True, False])
def test_a_cpu_that_imitates_bfloat16_is_named(folder, tmp_path, capsys, monkeypatch, kernels):
    monkeypatch.setattr("geomoe.tasks.fit.has_bfloat16", lambda device: kernels)
    train(folder, tmp_path, "--trainer.precision=bf16-mixed", "--trainer.max_steps=3")
    assert ("imitates bfloat16" in capsys.readouterr().err) != kernels


def test_weights_of_an_earlier_run_are_not_overwritten(folder, tmp_path):
    (tmp_path / "best.safetensors").write_bytes(b"earlier")
    with pytest.raises(GeomoeError, match="earlier run"):
        train(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_the_learning_rate_follows_its_schedule():
    def step(share):
        return learning_rate_factor(share, "step", (0.3, 0.5, 0.65, 0.7, 0.75), 0.0)

    assert [step(s) for s in (0, 0.29, 0.3, 0.5, 0.66, 0.71, 0.9)] == [
        1,
        1,
        0.5,
        0.25,
        0.125,
        0.0625,
        0.03125,
    ]
    assert learning_rate_factor(0.05, "cosine", (), 0.1) == 0.5
    assert learning_rate_factor(0.1, "cosine", (), 0.1) == 1
    assert learning_rate_factor(1, "cosine", (), 0.1) == pytest.approx(0)


@pytest.mark.parametrize(
    "wrong",
    ["--model.learning_rat=1", "--data.batch_size=two", "--config=/no/none.yaml", "--config={trainer: {"],
)
def test_wrong_options_are_errors_of_one_line(folder, tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as stop:
        train(folder, tmp_path, wrong)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("geomoe: error: ")
    assert any(name in line for name in ("learning_rat=", "data.batch_size", "config"))


def test_help_names_the_command(capsys):
    with pytest.raises(SystemExit):
        fit(["--help"])
    assert capsys.readouterr().out.startswith("usage: geomoe")


@pytest.mark.parametrize("config", shipped())
def test_configurations_are_understood_whole(config, capsys):
    with pytest.raises(SystemExit) as stop:
        fit([f"--config={config}", "--print_config"])
    assert stop.value.code == 0
    parsed = yaml.safe_load(capsys.readouterr().out)
    model, data = (parsed[section].get("init_args", parsed[section]) for section in ("model", "data"))
    assert parsed["trainer"]["max_steps"] % data["steps_per_epoch"] == 0
    scale = {"scale": data["scale"]} if "scale" in data else {}
    with torch.device("meta"):
        build(model["model"], {**scale, **(model["options"] or {})})


def test_the_released_network_is_trained_as_released(capsys):
    with pytest.raises(SystemExit):
        fit(["--config=mfg_hmoe_released_x4", "--print_config"])
    parsed = yaml.safe_load(capsys.readouterr().out)
    steps, model = parsed["trainer"]["max_steps"], parsed["model"]
    assert [steps * share for share in model["milestones"]] == [30_000, 50_000, 65_000, 70_000, 75_000]
    with torch.device("meta"):
        network = build(model["model"], {"scale": 4, **(model["options"] or {})})
    assert sum(p.numel() for p in network.parameters()) == 27_089_173
    assert (network.config.routing, network.config.mean) == ("hard", (0.0,))


@pytest.mark.filterwarnings("ignore")
def test_balance_rests_after_its_share_of_the_run(folder, tmp_path):
    moved = {}
    for until in (0.0, 0.5, 1.0):
        balance = ("--model.balance=bias", f"--model.balance_until={until}")
        train(folder, tmp_path / str(until), *balance, "--trainer.max_steps=6")
        router = load(str(tmp_path / str(until) / "last.safetensors")).model.upsample.routed.router
        moved[until] = router.prefer[0].bias.abs().max().item() / 0.01  # the default rate
    assert moved[0.0] == 0
    assert moved[0.5] <= 3
    assert moved[0.5] <= moved[1.0] <= 6
    assert moved[1.0] > 0


@pytest.mark.filterwarnings("ignore")
def test_training_starts_from_weights_and_the_card_says_so(folder, trained, tmp_path, capsys):
    first = shutil.copytree(trained, tmp_path / "first") / "last.safetensors"
    more = ("--model.learning_rate=0", "--trainer.max_steps=3")
    train(folder, tmp_path / "second", f"--model.start={first}", *more)
    assert "step 3 of 3: PSNR" in capsys.readouterr().err
    with pytest.raises(GeomoeError, match="at step 12; give a larger"):
        train(folder, tmp_path / "first", f"--ckpt_path={first.with_name('last.ckpt')}")
    start, end = load(str(first)), load(str(tmp_path / "second" / "last.safetensors"))
    for name, value in end.model.state_dict().items():
        torch.testing.assert_close(value, start.model.state_dict()[name], rtol=0, atol=1e-5)
    assert end.card.recipe["start"] == {
        "hash": start.hash,
        "recipe": start.card.recipe,
        "data": start.card.data,
        "degradation": start.card.degradation,
    }
    assert end.card.data["source"] == ""  # nothing is known of these images
    with pytest.raises(GeomoeError, match="embed_dim=16"):
        train(folder, tmp_path / "third", f"--model.start={first}", "--model.options.embed_dim=16")


@pytest.mark.filterwarnings("ignore")
def test_an_earlier_run_is_not_overwritten(folder, tmp_path):
    earlier = tmp_path / "best.safetensors"
    save_file({"hours": torch.ones(9)}, earlier)
    before = earlier.read_bytes()
    with pytest.raises(GeomoeError, match="from an earlier run"):
        train(folder, tmp_path)
    assert earlier.read_bytes() == before
    with pytest.raises(GeomoeError, match="no state to resume from"):
        train(folder, tmp_path, f"--ckpt_path={earlier}")
    with pytest.raises(GeomoeError, match="no checkpoint"):
        train(folder, tmp_path, "--ckpt_path=nothing.ckpt")


@pytest.mark.filterwarnings("ignore")
def test_interruption_has_a_status_of_its_own(folder, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SuperResolution, "training_step", interrupt)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "fit", f"--data.root={folder}", "--data.scale=2", "--data.patch_size=8",
                f"--model.options={MODEL}", f"--checkpoint.dirpath={tmp_path}",
                f"--trainer.logger.init_args.save_dir={tmp_path}",
                "--data.steps_per_epoch=1", "--trainer.max_steps=1", "--trainer.accelerator=cpu",
            ]
        )  # fmt: skip
    signal.signal(signal.SIGINT, before)  # Lightning turns it off
    assert stop.value.code == 130


def test_no_one_trains_on_the_test_split_unawares(tmp_path):
    (tmp_path / "Images" / "agricultural").mkdir(parents=True)
    assert SuperResolutionData(str(tmp_path)).layout == "ucmerced"
    with pytest.raises(GeomoeError, match="test split"):
        SuperResolutionData(str(tmp_path), layout="folder")
    assert SuperResolutionData(str(tmp_path / "Images" / "agricultural")).layout == "folder"


@pytest.mark.filterwarnings("ignore")
def test_losses_are_summed_logged_and_on_the_card(folder, trained, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    default = load(str(trained / "last.safetensors"))
    assert default.card.recipe["losses"] == {"l1": 1.0}
    hashes = {"default": default.hash}
    for name, losses in (("idle", "{l1: 1.0, edge: 0.0}"), ("sum", "{l1: 1.0, ssim: 0.1}")):
        train(folder, tmp_path / name, f"--model.losses={losses}")
        weights = load(str(tmp_path / name / "last.safetensors"))
        hashes[name] = weights.hash
        assert weights.card.recipe["losses"] == yaml.safe_load(losses)
    assert hashes["default"] == hashes["idle"] != hashes["sum"]
    log = EventAccumulator(str(next((tmp_path / "sum").rglob("events.*")).parent))
    log.Reload()
    assert all(0 < log.Scalars(f"train/{name}")[0].value < 1 for name in ("l1", "ssim"))
    with pytest.raises(GeomoeError, match="no loss is called 'l2'"):
        train(folder, tmp_path / "none", "--model.losses={l2: 1.0}")
