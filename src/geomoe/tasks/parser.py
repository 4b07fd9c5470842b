"""How ``geomoe fit`` reads its options: one line for what is wrong, and classes of known homes alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import yaml
from jsonargparse import set_loader, set_parsing_settings
from jsonargparse._loaders_dumpers import yaml_load
from lightning.pytorch.cli import LightningArgumentParser

from geomoe.printable import printable
from geomoe.tasks.bounded_yaml import check_yaml

__all__ = ["OneLineParser", "limit_configurations"]

HOMES = [
    "geomoe.data.super_resolution.sources",
    "geomoe.tasks",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "torch.optim",
]
"""Where a ``class_path`` may lead. Whatever else Python can import, a configuration cannot."""


class OneLineParser(LightningArgumentParser):
    """Says what is wrong in one line, where jsonargparse prints all options before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        # Of a list that does not fit, all of it would be repeated behind what is wrong with it.
        message = " ".join(message.split()).partition(" Given value type: <class 'list'>")[0]
        line = f"{message}; 'geomoe fit --help' lists all options"
        sys.stderr.write(f"geomoe: error: {printable(line)}\n")
        self.exit(2)


def _load(text: str) -> Any:
    check_yaml(text)
    return yaml_load(text)  # type: ignore[no-untyped-call]


def limit_configurations(homes: Iterable[str] = ()) -> None:
    """From now on configurations are local files of bounded size that name classes of certain homes alone.

    Args:
        homes: modules beside :data:`HOMES`.
    """
    set_loader("yaml", _load, exceptions=(yaml.YAMLError,))
    set_parsing_settings(
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"],
        import_path_allowlist=[*HOMES, *homes],
    )
