"""A training whose loss or weights are no numbers ends, and what it wrote before is left alone."""

import pytest
import torch

from geomoe import GeomoeError
from geomoe.models import load
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.super_resolution import SuperResolution

from .test_fit import folder, train  # noqa: F401


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("wrong", "every"), [(float("nan"), 50), (float("inf"), 1)])
def test_a_loss_that_is_no_number_ends_the_training(folder, tmp_path, monkeypatch, wrong, every):  # noqa: F811
    real = SuperResolution.training_step

    def step(self, batch, index):
        loss = real(self, batch, index)
        return loss * wrong if self.global_step == 4 else loss

    monkeypatch.setattr(SuperResolution, "training_step", step)
    with pytest.raises(GeomoeError, match=r"NaN or infinite in steps \d to \d, of which nothing is written"):
        train(folder, tmp_path, f"--trainer.log_every_n_steps={every}")
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 3
    for name in ("last", "best"):
        assert load(str(tmp_path / f"{name}.safetensors")).card.recipe["steps"] == 3


@pytest.mark.filterwarnings("ignore")
def test_a_last_step_that_breaks_the_weights_is_not_written(folder, tmp_path, monkeypatch):  # noqa: F811
    """Its loss was a number; what its gradient did shows in no loss any more."""

    def spoil(self, optimizer):
        if self.global_step == 2:
            next(self.model.parameters()).grad.fill_(torch.nan)

    monkeypatch.setattr(SuperResolution, "on_before_optimizer_step", spoil)
    with pytest.raises(GeomoeError, match="NaN or infinite in steps"):
        train(folder, tmp_path, "--trainer.gradient_clip_val=null", "--trainer.max_steps=3")
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".ckpt", ".safetensors")]
