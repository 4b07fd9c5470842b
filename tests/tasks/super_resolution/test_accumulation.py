import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geomoe.models import load
from geomoe.tasks.super_resolution import SuperResolution

from .test_fit import folder, train  # noqa: F401

BALANCED = ("--model.balance=bias", "--model.balance_weight=0.05", "--ema.decay=0.0")
APART = (*BALANCED, "--data.batch_size=1", "--trainer.accumulate_grad_batches=4")
STOP = (
    "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/psnr",
    "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0",
)  # fmt: skip


@pytest.fixture
def gradients(monkeypatch):
    """Of all steps of all runs, as the optimiser is given them but for their clipping."""
    seen = []

    def keep(self, optimizer):
        seen.append(torch.cat([p.grad.flatten() for p in self.model.parameters()]))

    monkeypatch.setattr(SuperResolution, "on_before_optimizer_step", keep)
    return seen


def scalars(run, name):
    log = EventAccumulator(str(next(run.rglob("events.*")).parent))
    log.Reload()
    return [(event.step, event.value) for event in log.Scalars(name)]


@pytest.mark.filterwarnings("ignore")
def test_small_batches_add_up_to_a_large_one(folder, tmp_path, capsys, gradients):  # noqa: F811
    train(folder, tmp_path / "whole", *BALANCED, "--data.batch_size=4")
    lines = capsys.readouterr().err
    whole = gradients.copy()
    gradients.clear()
    train(folder, tmp_path / "apart", *APART)
    assert len(whole) == len(gradients) == 12
    for a, b in zip(whole, gradients, strict=True):
        assert (a - b).norm() < 1e-3 * a.norm()
    torch.testing.assert_close(gradients[0], whole[0], rtol=1e-4, atol=1e-7)
    one, four = (load(str(tmp_path / run / "last.safetensors")) for run in ("whole", "apart"))
    for key, value in four.model.state_dict().items():
        torch.testing.assert_close(value, one.model.state_dict()[key], rtol=0, atol=1e-4, msg=key)
    router = one.model.upsample.routed.router
    assert router.prefer[1].bias.abs().max() > 0.1  # one move a step, over all batches
    for name in ("steps", "of", "batch_size"):
        assert one.card.recipe[name] == four.card.recipe[name]
    rates, expected = (scalars(tmp_path / run, "lr-Adam") for run in ("apart", "whole"))
    assert set(rates) == set(expected)  # said again with every batch of a step
    assert len(set(rates)) == 12
    told = capsys.readouterr().err
    steps = [f"step {step} of 12" for step in (3, 6, 9, 12)]
    assert [line.partition(":")[0] for line in told.splitlines() if line.startswith("step")] == steps
    assert all(step in lines for step in steps)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_accumulating_run_is_resumed_with_the_same_numbers(folder, tmp_path):  # noqa: F811
    train(folder, tmp_path / "whole", *APART)
    train(folder, tmp_path / "cut", *APART, *STOP)
    train(folder, tmp_path / "cut", *APART, f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / run / "last.safetensors")) for run in ("whole", "cut"))
    assert whole.hash == cut.hash
