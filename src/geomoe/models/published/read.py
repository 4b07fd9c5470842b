"""Reading a published file: its tensors and nothing else."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["Checkpoint", "read_checkpoint"]

_HOLDERS = ("params_ema", "params", "state_dict", "model_state_dict")
"""Where programs keep the tensors of a network; an average of them before those it is of."""

_REFUSED = re.compile(r"GLOBAL (\S+) was not an allowed|Unsupported class (\S+)")

_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """What a published file holds.

    Attributes:
        tensors: of the network, by the names that its program gives them, without ``module.``.
        holder: the entry of the file that they were in; empty where they were all of it.
        sha256: of the file, in hexadecimal.
    """

    tensors: Mapping[str, Tensor]
    holder: str
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a file that ``torch.save`` or safetensors wrote, without running any code that it holds.

    Raises:
        GeomoeError: no such file, one that holds more than tensors, plain containers and numbers (the type is
            named), or tensors that claim to be larger than the file.
    """
    if not path.is_file():
        raise GeomoeError(f"{path} does not exist, or is not a file; give a checkpoint (.pth, .pt)")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        holder, tensors = _tensors(_load(path, size))
        _check(tensors, size)
    except GeomoeError as error:
        raise GeomoeError(f"{path}: {error}") from error
    except OSError as error:
        raise GeomoeError(f"{path} cannot be read: {error.strerror or error}") from error
    return Checkpoint(tensors, holder, sha256)


def _load(path: Path, size: int) -> Any:
    try:
        if path.suffix == ".safetensors":  # as others have made of published files
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > size:  # torch.save does not compress
                raise GeomoeError(f"it unpacks to {unpacked:,} bytes; torch.save packs no more than {size:,}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except GeomoeError:
        raise
    except (
        Exception
    ) as error:  # what damaged bytes raise in readers of archives and pickles has no common class
        found = _REFUSED.search(str(error))
        if found is None:
            raise GeomoeError("it is damaged, or not a file that torch.save or safetensors wrote") from error
        raise GeomoeError(
            f"it holds {found[1] or found[2]}, which is not a tensor and is not loaded; save and convert its "
            "state_dict() alone"
        ) from error


def _tensors(content: object) -> tuple[str, dict[str, Tensor]]:
    if not isinstance(content, dict):
        raise GeomoeError(f"it holds {_kind(content)}; expected tensors by name")
    holder = next((name for name in _HOLDERS if isinstance(content.get(name), dict)), "")
    held = content[holder] if holder else content
    for name, value in held.items():
        if not isinstance(name, str) or type(value) not in (Tensor, torch.nn.Parameter):
            where = f"{holder} holds" if holder else "it holds"
            raise GeomoeError(
                f"{where} {_kind(value)} as {str(name)[:80]!r}; expected tensors by name, in the file or in "
                f"its {', '.join(_HOLDERS[:-1])} or {_HOLDERS[-1]}"
            )
    if not held:
        raise GeomoeError("it holds no tensors")
    prefix = "module." if all(name.startswith("module.") for name in held) else ""
    return holder, {name.removeprefix(prefix): value.detach() for name, value in held.items()}


def _kind(value: object) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")


def _check(tensors: Mapping[str, Tensor], size: int) -> None:
    """Before anything is done with them: plain tensors in memory, in all no larger than their file."""
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise GeomoeError(
                f"{name[:80]!r} is sparse, quantised or without values; expected a plain tensor"
            )
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > size:
        raise GeomoeError(f"its tensors claim {claimed:,} bytes, more than the {size:,} of the file")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype not in _PRECISIONS:
            raise GeomoeError(
                f"{name[:80]!r} is of {tensor.dtype}; expected half, single or double precision"
            )
        if not tensor.isfinite().all():
            raise GeomoeError(f"{name[:80]!r} holds values that are not finite")
