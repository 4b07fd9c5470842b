"""What the options of ``geomoe fit`` may be."""

import os
import subprocess
import sys

import pytest

from geomoe import GeomoeError
from geomoe.lock import locked
from geomoe.models import load
from geomoe.tasks.checkpoint import read_checkpoint

from .test_fit import folder, train  # noqa: F401

WRONG = {
    "model.learning_rate": ("-1e-3", "nan", ".inf"), "model.betas": ("[0.9,1.0]", "[-0.1,0.9]"),
    "model.milestones": ("[0.5,1.5]",), "model.warmup": ("1.0", "-0.1"),
    "model.balance_weight": ("-1", "nan"), "model.balance_until": ("-0.1", "1.1"), "seed_everything": ("-1",),
    "model.losses": ("{l1: -1}", "{l1: .nan}", "{l1: 0}"),
    "data.patch_size": ("0", "-8"), "data.batch_size": ("0", "-2"), "data.steps_per_epoch": ("0", "-3"),
    "data.validation": ("-0.1", "1.0", "nan"), "data.tolerance": ("-1", "nan"), "data.workers": ("-1",),
    "data.scale": ("0", "5", "-2"), "data.bands": ("0", "-3"), "ema.decay": ("-0.1", "1.1", "nan"),
    "trainer.max_steps": ("0", "-2"), "trainer.accumulate_grad_batches": ("0", "-1"),
    "trainer.limit_train_batches": ("0", "-1"), "trainer.limit_val_batches": ("0", "-1"),
    "trainer.check_val_every_n_epoch": ("0",), "trainer.devices": ("0", "-3"), "trainer.precision": ("7",),
    "trainer.gradient_clip_val": ("-1", "nan"), "trainer.log_every_n_steps": ("-2",),
    "trainer.val_check_interval": ("-1",),
    "checkpoint.save_top_k": ("-2",),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param(option, value, marks=[pytest.mark.slow] if value != values[0] else [])
        for option, values in WRONG.items()
        for value in values
    ],
)
def test_a_number_that_cannot_be_is_refused_in_one_line(folder, tmp_path, capsys, option, value):  # noqa: F811
    with pytest.raises((GeomoeError, SystemExit)) as stop:
        train(folder, tmp_path / "run", f"--{option}={value}")
    said = str(stop.value) if isinstance(stop.value, GeomoeError) else capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert option.rpartition(".")[2].split("_")[0] in said, said
    assert not list(tmp_path.rglob("*.ckpt")) + list(tmp_path.rglob("*.safetensors"))


@pytest.mark.filterwarnings("ignore")
def test_the_last_epoch_is_as_long_as_the_run_has_steps(folder, tmp_path):  # noqa: F811
    train(folder, tmp_path / "cut", "--trainer.max_steps=4")  # of epochs of 3
    assert load(str(tmp_path / "cut" / "last.safetensors")).card.recipe["steps"] == 4
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 4
    train(folder, tmp_path / "short", "--trainer.max_steps=2")
    last = tmp_path / "short" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == 2
    train(folder, tmp_path / "short", "--trainer.max_steps=7", f"--ckpt_path={last}")
    assert load(str(tmp_path / "short" / "last.safetensors")).card.recipe["steps"] == 7
    assert read_checkpoint(last)["epoch"] == 2  # of 2, 3 and 2 steps


@pytest.mark.filterwarnings("ignore")
def test_a_second_training_in_one_folder_is_refused(folder, tmp_path):  # noqa: F811
    (tmp_path / "run").mkdir()
    with (
        locked(tmp_path / "run" / ".fit", ""),
        pytest.raises(
            GeomoeError, match=r"another training is at .*run; wait for it, or give another --check"
        ),
    ):
        train(folder, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    (tmp_path / "run" / ".last.ckpt.0a1b2c3d.part").write_bytes(b"of a training that was killed")
    train(folder, tmp_path / "run", "--trainer.max_steps=3")
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_no_warning_with_a_path_reaches_the_user(folder, tmp_path):  # noqa: F811
    program = (
        "import sys, warnings; from tests.tasks.super_resolution.test_fit import train; "
        "from geomoe.tasks.super_resolution_data import *; "
        "real = SuperResolutionData.setup; SuperResolutionData.setup = lambda self, stage=None: "
        "(warnings.warn('a driver\\nis old'), real(self, stage)); train(*sys.argv[1:])"
    )
    more = ("--trainer.max_steps=2", "--trainer.log_every_n_steps=50", "--data.workers=1")
    command = [sys.executable, "-c", program, str(folder), str(tmp_path), *more]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": ""})
    assert done.returncode == 0, done.stderr
    first, *steps = done.stderr.splitlines()
    assert first == "geomoe: note: a driver is old"
    assert [line[:14] for line in steps] == ["geomoe: 3 imag", "step 2 of 2: P", "geomoe: the be"]
