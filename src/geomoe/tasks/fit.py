"""``geomoe fit``: training from a configuration file, through LightningCLI."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from geomoe.configs import find_config
from geomoe.errors import GeomoeError, expect
from geomoe.files import read_small
from geomoe.models.precision import has_bfloat16
from geomoe.printable import printable
from geomoe.tasks.average import MovingAverage
from geomoe.tasks.bounded_yaml import load_yaml
from geomoe.tasks.checkpoint import SafeCheckpoints, read_checkpoint
from geomoe.tasks.families import FAMILIES, USUAL
from geomoe.tasks.finite import FiniteLoss
from geomoe.tasks.parser import OneLineParser, limit_configurations
from geomoe.tasks.progress import ValidationLines
from geomoe.tasks.routing import RoutingMonitor
from geomoe.tasks.stream import StreamData
from geomoe.tasks.super_resolution_data import band_count
from geomoe.tasks.task import Task
from geomoe.tasks.weights import WeightsWriter

__all__ = ["fit"]

_CONFIG = ("-c", "--config")

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


class _FitCLI(LightningCLI):
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        # Of the others each would have a parser of its own made, at every start.
        return {"fit": LightningCLI.subcommands()["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        inside = ".init_args" if self.subclass_mode_model else ""
        for section in ("data", "model"):
            parser.link_arguments("seed_everything", f"{section}{inside}.seed")
        if self.subclass_mode_model:
            # What a task does not take, or data do not have, is left out.
            for name in dict.fromkeys(n for one in FAMILIES.values() for n in one.task.from_data):
                parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        else:
            parser.link_arguments("data.scale", "model.scale")
            parser.link_arguments("data.bands", "model.bands", compute_fn=band_count)
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

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # Where a class is named, jsonargparse tells of what it raised among all that it was given.
            if isinstance(error.__cause__, GeomoeError):
                raise error.__cause__ from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:
            raise GeomoeError(f"the section trainer cannot be used: {_first_line(error)}") from error
        strategy = trainer.strategy
        strategy.checkpoint_io = SafeCheckpoints()
        if isinstance(strategy, DDPStrategy):
            strategy._ddp_kwargs = {**_DATA_PARALLEL, **strategy._ddp_kwargs}
        elif trainer.world_size > 1:
            raise GeomoeError(
                f"several devices train by --trainer.strategy ddp, not by {type(strategy).__name__}"
            )
        return trainer

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        seed = self.config.fit.seed_everything
        expect(0 <= seed < 2**32, "seed_everything", seed, "a whole number from 0 to 4294967295")

    def _parse_ckpt_path(self) -> None:
        """The checkpoint's options of the section ``model`` win over all others."""
        if path := self.config.fit.ckpt_path:
            options = read_checkpoint(Path(path))["hyper_parameters"]
            options.pop("_instantiator", None)
            if self.subclass_mode_model:
                options = {"class_path": options.pop("_class_path", None), "init_args": options}
            self.config = self.parser.parse_object({"fit": {"model": options}}, self.config)

    def before_fit(self) -> None:
        if self.model.start is None and getattr(self.model.model, "keeps_start", False):
            raise GeomoeError(
                f"{self.model.name} keeps most of the weights that it starts from; give --model.start"
            )
        # Before the logger makes a folder for the run.
        self._writer.refuse_what_would_be_lost(self.trainer, resumes=self.config.fit.ckpt_path is not None)
        if "bf16" in str(self.trainer.precision) and not has_bfloat16(self.trainer.strategy.root_device):
            sys.stderr.write(
                "geomoe: this CPU imitates bfloat16, which takes several times as long; "
                "--trainer.precision 32-true does not\n"
            )

    def fit(self, **arguments: Any) -> None:
        """Train, in a folder that no other training writes to."""
        try:
            with self._writer.alone(self.trainer):
                self.trainer.fit(**arguments)
        except (GeomoeError, MisconfigurationException):
            raise
        except OSError as error:
            what = f"{error.filename or 'a file'}: {error.strerror or error}"
            raise GeomoeError(
                f"training ended, {what}; resume from the last epoch's checkpoint with --ckpt_path"
            ) from error
        except Exception as error:
            # Whole, and yet of other parts than this training has: anything may come of that.
            if (path := self.config.fit.ckpt_path) and not self._writer.trained:
                raise GeomoeError(
                    f"{path} is not a checkpoint that this training can continue from: {_first_line(error)}"
                ) from error
            raise

    def after_fit(self) -> None:
        if not self._writer.trained:
            raise GeomoeError(
                f"nothing was left to train: {self.config.fit.ckpt_path} is at "
                f"step {self.trainer.global_step}; give a larger --trainer.max_steps"
            )

    @property
    def _writer(self) -> WeightsWriter:
        return next(c for c in self.trainer.callbacks if isinstance(c, WeightsWriter))  # type: ignore[attr-defined]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _note(message: Warning | str, *_: object) -> None:
    sys.stderr.write(f"geomoe: note: {printable(' '.join(str(message).split()))}\n")


@contextmanager
def _few_words() -> Iterator[None]:
    """Leave out Lightning's advertisements and advice; what others warn of is a line without a path."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        if not sys.warnoptions:  # python -W shows all
            warnings.showwarning = _note  # type: ignore[assignment]
            warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning\b|torch\.utils")
        yield


def _spelt_out(args: Sequence[str]) -> list[str]:
    """With the files of configurations that are given by name, and ``--skip-corrupt`` as the option it is."""
    spelt: list[str] = []
    for arg in args:
        name, equals, value = arg.partition("=")
        if spelt and spelt[-1] in _CONFIG:
            spelt.append(_configuration(arg))
        elif equals and name in _CONFIG:
            spelt.append(f"{name}={_configuration(value)}")
        else:
            spelt.append("--data.skip_corrupt=true" if arg == "--skip-corrupt" else arg)
    return spelt


def _configuration(given: str) -> str:
    """The file that is meant, which must come to an end: jsonargparse would wait for a pipe for ever."""
    path = find_config(given)
    if os.path.lexists(path):
        read_small(path)
    return path


def _names_classes(args: Sequence[str]) -> bool:
    """Whether task and data are named by ``class_path``; without, they are those of super-resolution."""
    given = [arg for arg in args if arg.partition("=")[0] in ("--model", "--model.class_path")]
    files = [value for arg, value in pairwise([*args, ""]) if arg in _CONFIG]
    files += [arg.partition("=")[2] for arg in args if arg.partition("=")[0] in _CONFIG and "=" in arg]
    return bool(given) or any(_model_of(path).get("class_path") for path in files if os.path.isfile(path))


def _model_of(path: str) -> Mapping[str, Any]:
    """The section ``model`` of a configuration; nothing of one that the parser will refuse."""
    try:
        found = load_yaml(read_small(path).decode())
    except (yaml.YAMLError, ValueError):
        return {}
    model = found.get("model") if isinstance(found, Mapping) else None
    return model if isinstance(model, Mapping) else {}


def fit(args: Sequence[str]) -> None:
    """Train as ``args`` say: ``--config FILE``, or its name, and any option by its dotted name."""
    args = _spelt_out(args)
    limit_configurations(kind.__module__ for one in FAMILIES.values() for kind in (one.task, one.data))
    torch.set_float32_matmul_precision("high")
    with _few_words():
        try:
            _run(args)
        except MisconfigurationException as error:
            raise GeomoeError(f"this cannot be trained: {_first_line(error)}") from error


def _run(args: Sequence[str]) -> None:
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
    named = _names_classes(args)
    _FitCLI(
        Task if named else USUAL.task,
        StreamData if named else USUAL.data,
        subclass_mode_model=named,
        subclass_mode_data=named,
        trainer_defaults={
            **defaults,
            "enable_progress_bar": terminal,
            "enable_model_summary": terminal,
            "callbacks": [
                LearningRateMonitor("step"),
                FiniteLoss(),
                RoutingMonitor(),
                *([] if terminal else [ValidationLines()]),
            ],
        },
        seed_everything_default=0,
        parser_class=OneLineParser,
        args=["fit", *args],
        parser_kwargs={"prog": "geomoe", "allow_abbrev": False},
        save_config_kwargs={"overwrite": True},
    )
