"""From a published file to weights with a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomoe.errors import GeomoeError
from geomoe.files import overlap
from geomoe.models.published.families import best_name, recognise
from geomoe.models.published.layout import Layout, State, to_ours
from geomoe.models.published.read import read_checkpoint
from geomoe.models.registry import config_of
from geomoe.models.weights import Card, check_target, save

__all__ = ["convert"]

_UNSAID = "not stated"


def convert(
    source: Path,
    target: Path,
    *,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    origin: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> Card:
    """Write the weights of a published file as weights of ours.

    Args:
        source: what the published program saved, ``.pth``.
        target: file to write, ``.safetensors``.
        model: in the registry, that it must be; whichever it is if ``None``.
        options: of the configuration, where the file does not tell them or others are wanted.
        origin: where the file came from, for the card.
        licence: SPDX identifier of the weights, for the card.
        overwrite: whether ``target`` may exist.

    Returns:
        The card that was written.

    Raises:
        GeomoeError: a file that holds more than tensors or is of no known network, another network than
            ``model``, an option that the network does not have, a target that exists or cannot be written.
    """
    check_target(target, overwrite=overwrite)
    if overlap([target], [source]):
        raise GeomoeError(f"{target} is what is converted; give another target")
    if model is not None:
        config_of(model, {})  # before a large file is read
    held = read_checkpoint(source)
    try:
        layout = recognise(held.tensors)
        network, config = _ours(layout, held.tensors, options or {})
    except GeomoeError as error:
        raise GeomoeError(f"{source}: {error}") from error
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        # Shapes that no program gave: to tell options from them, and to change tensors, fails in many ways.
        raise GeomoeError(
            f"{source}: it is not {layout.name} as published: its shapes do not fit each other"
        ) from error
    card = Card(
        model=_name(source, layout, config, model),
        config=asdict(config),
        radiometry="unit",
        data={"source": origin or _UNSAID},
        degradation="unknown",
        recipe={
            "converted_from": source.name,
            "sha256": held.sha256,
            "layout": layout.name,
            **({"entry": held.holder} if held.holder else {}),
        },
        protocol="",
        scores={},
        commit="",
        date="",
        licence=licence or _UNSAID,
    )
    return save(target, network, card)


def _ours(layout: Layout, tensors: State, options: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """The network with the tensors in it; all else of it stays without memory."""
    network, state = to_ours(layout, tensors, options)
    # Copied: tensors that share memory in a file must not in ours.
    own = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    network.load_state_dict(own, assign=True)
    return network, network.config


def _name(source: Path, layout: Layout, config: Any, wanted: str | None) -> str:
    name = best_name(layout.model, config)
    if wanted is None or wanted == name:
        return name
    other = config_of(wanted, {"scale": config.scale, "bands": config.bands})
    if type(other) is not type(config):
        raise GeomoeError(f"{source} holds {name} (layout {layout.name}), not {wanted}")
    apart = ", ".join(
        f"{key}={value!r}" for key, value in asdict(config).items() if getattr(other, key) != value
    )
    raise GeomoeError(f"{source} holds {name} with {apart}, not {wanted}; leave --model out")
