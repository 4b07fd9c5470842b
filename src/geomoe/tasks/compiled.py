"""Compiling the blocks of a model, where it stands."""

from __future__ import annotations

import os
import shutil
import sys

from torch import nn

from geomoe.errors import GeomoeError
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.routing.router import AnyRouter

__all__ = ["TRUNKS", "compile_blocks"]

TRUNKS = ("groups", "body", "blocks", "encoder", "decoder")
"""What models call a row of blocks, or of rows."""


def compile_blocks(model: nn.Module, device: str = "cpu", backend: str = "inductor") -> list[str]:
    """Compile the blocks of a trunk one by one; blocks that are alike share a graph.

    Names of parameters stay as they are. Routers and experts are left alone: how many rows each expert gets
    is known only once a plan is there. Of a block that routes, the parts that do not are compiled. Blocks
    are compiled for each size of input, when it is first seen.

    Args:
        model: one of the registry's.
        device: type of the device that it will run on.
        backend: of :func:`torch.compile`.

    Returns:
        The names of the compiled modules.

    Raises:
        GeomoeError: no C++ compiler for a CPU, or a model without blocks.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device == "cpu" and backend == "inductor" and shutil.which(compiler) is None:
        raise GeomoeError(
            f"there is no C++ compiler {compiler}, which --model.compile needs on a CPU; install one, name "
            "another in the environment variable CXX, or leave --model.compile out"
        )
    names = _blocks(model)
    if not names:
        raise GeomoeError(f"{type(model).__name__} has no blocks to compile; leave --model.compile out")
    from torch._dynamo import config  # the compiler is heavy

    # Blocks share their code, and the compiler gives up on code of which there are too many variants, such
    # as one for each probability of stochastic depth.
    config.recompile_limit = max(config.recompile_limit, 2 * len(names))
    for name in names:
        model.get_submodule(name).compile(backend=backend, dynamic=False)
    return names


def _blocks(model: nn.Module) -> list[str]:
    """The innermost modules of ours in a trunk in which nothing is routed."""
    found: list[str] = []
    for name, part in model.named_modules():
        row = name.rstrip("0123456789.")
        if row != name and row.rpartition(".")[2] in TRUNKS and _ours(part):
            found += _parts(name, part)
    return [name for name in dict.fromkeys(found) if not any(other.startswith(f"{name}.") for other in found)]


def _parts(name: str, part: nn.Module) -> list[str]:
    """The largest modules of ours inside of ``part`` in which nothing is routed."""
    if isinstance(part, AnyRouter | ExpertBank):
        return []
    if _ours(part) and not _routes(part):
        return [name]
    return [inner for child, module in part.named_children() for inner in _parts(f"{name}.{child}", module)]


def _ours(part: nn.Module) -> bool:
    return type(part).__module__.startswith("geomoe.") and next(part.parameters(), None) is not None


def _routes(part: nn.Module) -> bool:
    return any(isinstance(inner, AnyRouter | ExpertBank) for inner in part.modules())
