"""Settings that change during training, kept with the weights.

A number of experts, a temperature, a rate are plain numbers, which a schedule (or a user) may change. What
they are then is in the module's ``state_dict()`` beside the weights, as a scalar, if it is not what the
module was made with, or if a schedule has them. A state without one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["saved", "scheduled"]


def saved(module: nn.Module, *names: str) -> None:
    """Have these settings of ``module``, as they are now, saved once they change. Called once, when made."""
    made = {name: getattr(module, name) for name in names}
    module.register_state_dict_post_hook(partial(_save, made))
    module.register_load_state_dict_pre_hook(partial(_load, made))


def scheduled(module: nn.Module) -> None:
    """Have all its settings saved from now on: one that was not may be changed when the state is loaded."""
    module.__dict__["scheduled"] = True


def _save(
    made: Mapping[str, float], module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any
) -> None:
    for name, value in made.items():
        now = getattr(module, name)
        if now != value or module.__dict__.get("scheduled"):
            kind = torch.float64 if isinstance(now, float) else torch.int64
            state[prefix + name] = torch.tensor(now, dtype=kind, device="cpu")


def _load(
    made: Mapping[str, float],
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    *others: Any,
) -> None:
    for name in made:
        given = state.pop(prefix + name, None)
        if given is not None:
            setattr(module, name, given.item())
