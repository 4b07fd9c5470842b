"""``geomoe fit``: training from a configuration file, through LightningCLI."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from geomoe.errors import GeomoeError
from geomoe.tasks.average import MovingAverage
from geomoe.tasks.data import SuperResolutionData
from geomoe.tasks.precision import has_bfloat16
from geomoe.tasks.progress import ValidationLines
from geomoe.tasks.routing import RoutingMonitor
from geomoe.tasks.super_resolution import SuperResolution
from geomoe.tasks.weights import WeightsWriter

__all__ = ["fit"]

_DDP_OPTIONS = signature(DistributedDataParallel).parameters
_DATA_PARALLEL = {
    # A hard gate gives its router no gradient, and a bank without rows may give none to its experts; what has
    # none on all processes then keeps None, as in a single one, where zeros would move Adam's averages.
    "find_unused_parameters": True,
    # No buffer differs between processes: balance counts loads over all of them. The option's name depends
    # on torch's version.
    next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in _DDP_OPTIONS): False,
    "gradient_as_bucket_view": True,
}


class _Parser(LightningArgumentParser):
    """Says what is wrong in one line, where jsonargparse prints all options before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        line = f"{' '.join(message.split())}; 'geomoe fit --help' lists all options"
        sys.stderr.write(f"geomoe: error: {line}\n")
        self.exit(2)


class _FitCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.scale", "model.scale")
        parser.link_arguments("data.bands", "model.bands")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", "model.seed")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(MovingAverage, "ema")
        parser.add_lightning_class_args(WeightsWriter, "weights")
        parser.set_defaults(
            {
                # One checkpoint, of the last whole epoch, whether it was the best or not: it is there to
                # resume from, and the next epoch's patches are then those of an uninterrupted run. The
                # best weights are kept by WeightsWriter.
                "checkpoint.filename": "last",
                # A second run in one folder must not leave the first one's last.ckpt to resume from.
                "checkpoint.enable_version_counter": False,
            }
        )

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy):
            strategy._ddp_kwargs = {**_DATA_PARALLEL, **strategy._ddp_kwargs}
        elif trainer.world_size > 1:
            raise GeomoeError(
                f"several devices train by --trainer.strategy ddp, not by {type(strategy).__name__}"
            )
        return trainer

    def before_fit(self) -> None:
        # Before the logger makes a folder for the run.
        path = self.config.fit.ckpt_path
        self._writer.refuse_what_would_be_lost(self.trainer, self.datamodule, resumes=path is not None)
        if "bf16" in str(self.trainer.precision) and not has_bfloat16(self.trainer.strategy.root_device):
            sys.stderr.write(
                "geomoe: this CPU imitates bfloat16, which takes several times as long; "
                "--trainer.precision 32-true does not\n"
            )
        if path in (None, "last", "best"):
            return
        if not Path(path).is_file():
            raise GeomoeError(f"there is no checkpoint {path}; give --ckpt_path the last.ckpt of a run")
        if Path(path).suffix == ".safetensors":
            raise GeomoeError(
                f"{path} holds weights and no state to resume from; give --ckpt_path the last.ckpt of a run, "
                "or start from the weights with --model.start"
            )

    def after_fit(self) -> None:
        if not self._writer.trained:
            raise GeomoeError(
                f"nothing was left to train: {self.config.fit.ckpt_path} is at "
                f"step {self.trainer.global_step}; give a larger --trainer.max_steps"
            )

    @property
    def _writer(self) -> WeightsWriter:
        return next(c for c in self.trainer.callbacks if isinstance(c, WeightsWriter))  # type: ignore[attr-defined]


def fit(args: Sequence[str]) -> None:
    """Train as ``args`` say: ``--config FILE`` and any option by its dotted name."""
    defaults: dict[str, Any] = {
        "reload_dataloaders_every_n_epochs": 1,
        "gradient_clip_val": 1.0,
        "use_distributed_sampler": False,
        "devices": 1,  # how many processes share a step is part of the recipe: asked for, not found
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": "runs"},
        },
    }
    terminal = sys.stderr.isatty()
    # Else advertisements and figures of Lightning's own stand between ours.
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    # LightningCLI would rather read sys.argv itself; ours holds the name of the command too.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    # Lightning's affair with torch, and what a run that is resumed finds by intent.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    _FitCLI(
        SuperResolution,
        SuperResolutionData,
        trainer_defaults={
            **defaults,
            "enable_progress_bar": terminal,
            "enable_model_summary": terminal,
            "callbacks": [
                LearningRateMonitor("step"),
                RoutingMonitor(),
                *([] if terminal else [ValidationLines()]),
            ],
        },
        seed_everything_default=0,
        parser_class=_Parser,
        args=["fit", *args],
        parser_kwargs={"prog": "geomoe", "allow_abbrev": False},
        save_config_kwargs={"overwrite": True},
    )
