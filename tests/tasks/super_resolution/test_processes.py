"""Two processes train as one does."""

import os
import socket
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from geomoe.models import load

from .test_fit import train

WORLD = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch was built without gloo"),
]

# Three images to validate on, which two processes cannot share evenly.
COMMON = (
    "--model.balance=bias", "--model.balance_weight=0.05", "--ema.decay=0.0",
    "--trainer.max_steps=4", "--data.steps_per_epoch=2", "--data.validation=0.4",
)  # fmt: skip
BOTH = (*COMMON, f"--trainer.devices={WORLD}", "--trainer.strategy=ddp")
ACCUMULATED = ("--data.batch_size=1", "--trainer.accumulate_grad_batches=2")
STOP = (
    "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/psnr",
    "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0",
)  # fmt: skip


def process(rank, folder, out, port):
    warnings.simplefilter("ignore")
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    train(folder, out / "whole", *BOTH)
    train(folder, out / "cut", *BOTH, *STOP)
    train(folder, out / "cut", *BOTH, f"--ckpt_path={out / 'cut' / 'last.ckpt'}")
    # A router without a gradient.
    train(folder, out / "hard", *BOTH, *ACCUMULATED, "--model.options.routing=hard")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for i in range(7):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (folder, out, port), nprocs=WORLD)
    train(folder, out / "one", *COMMON, "--data.batch_size=4")
    train(folder, out / "one_hard", *COMMON, "--data.batch_size=4", "--model.options.routing=hard")
    return out


def last(runs, name):
    return load(str(runs / name / "last.safetensors"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "one"), [("whole", "one"), ("hard", "one_hard")])
def test_two_processes_end_with_the_weights_of_one(runs, name, one):
    """Of batches of half the size, or a quarter of it twice; biases of the routers among the weights."""
    several, alone = last(runs, name), last(runs, one)
    expected = alone.model.state_dict()
    for key, value in several.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-5, msg=key)
    assert several.card.recipe["batch_size"] == alone.card.recipe["batch_size"] == 4
    assert several.card.recipe["processes"] == 2
    for score in ("psnr", "ssim", "gain"):
        assert several.card.scores[score] == pytest.approx(alone.card.scores[score], abs=2e-4)
    assert expected["upsample.routed.router.prefer.1.bias"].abs().max() > 0.01


@pytest.mark.filterwarnings("ignore")
def test_resumed_together(runs):
    assert last(runs, "cut").hash == last(runs, "whole").hash
