"""Models without their numbers: is a file of weights the one that its card says, before memory is taken?"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from geomoe.errors import GeomoeError
from geomoe.models.registry import build, config_of

__all__ = ["at_most", "check_shapes"]

_LEAST_NUMBER = 2**16
"""Of an option, which is let pass for any file: a model of so many channels or blocks is made soon enough."""
_LEAST_BUFFER = 2**26
"""Numbers of the tables that a model makes itself, such as those of its attention windows."""


def check_shapes(
    file: str, name: str, options: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a configuration that the tensors of a file are not of.

    It may ask for a billion blocks, or a width of a million: first its numbers are compared with those of the
    file, then the model is made without memory, and no further than the file goes.

    Args:
        file: of the weights, for messages.
        name: of the model on its card.
        options: of that model's configuration.
        shapes: of the file's tensors, by name.

    Raises:
        GeomoeError: if they are of another model, or as `build`.
    """
    other = f"{file} holds weights of another model than its card says ({name})"
    numbers = sum(map(prod, shapes.values()))
    for option, value in asdict(config_of(name, options)).items():
        total = sum(value) if isinstance(value, tuple) and all(isinstance(v, int) for v in value) else value
        if isinstance(total, int) and total > max(numbers, _LEAST_NUMBER):
            raise GeomoeError(f"{other}: {option}={value!r} for {numbers} numbers")
    # Of a twin several networks are made, to find its size.
    with torch.device("meta"), at_most(12 * len(shapes) + 256, other):
        model = build(name, options)
    made = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key in sorted(made.keys() | shapes.keys()):
        if made.get(key) != shapes.get(key):
            raise GeomoeError(f"{other}: {key} is {shapes.get(key)}, expected {made.get(key)}")
    if sum(buffer.numel() for buffer in model.buffers()) > max(numbers, _LEAST_BUFFER):
        raise GeomoeError(f"{other}: it makes tables that are far larger than its weights")


@contextmanager
def at_most(tensors: int, other: str) -> Iterator[None]:
    """Raises GeomoeError, ``other`` first, where this thread gives modules more tensors than so many."""
    left, thread = tensors, threading.get_ident()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal left
        left -= threading.get_ident() == thread
        if left < 0:
            raise GeomoeError(f"{other}: that has many more tensors")

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
