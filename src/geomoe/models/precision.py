"""In which precision a model computes: what a device has instructions for, and what is asked of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, get_args

import torch

from geomoe.errors import GeomoeError

__all__ = ["AskedPrecision", "Precision", "computing_in", "has_bfloat16", "pick_precision", "slow_precision"]

Precision = Literal["float32", "bfloat16"]
"""Of convolutions and matrix products; in ``bfloat16`` routers, norms and sums stay in float32."""
AskedPrecision = Literal["auto", "float32", "bfloat16"]

_DEVICES = ("cpu", "cuda")
_IMITATED_ISA = ("AVX512_CORE", "AVX512_CORE_VNNI")
"""What oneDNN may be held to, by its environment, on which it imitates bfloat16."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 rather than imitates it, in several times the time."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return True
    # oneDNN decides the path that torch takes. With AVX-512 alone it says yes, and converts to and fro.
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):  # elsewhere that is the processor's own answer
        return True
    held_to = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")
    instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return instructions and held_to.upper() not in _IMITATED_ISA


def pick_precision(asked: str, device: torch.device, measured: bool) -> Precision:
    """What ``asked`` means on a device.

    Args:
        asked: ``auto``, ``float32`` or ``bfloat16``. ``auto`` is bfloat16 where the device has it and it was
            measured what the weights lose in it, else float32.
        device: that computes.
        measured: whether the weights' card says what they lose.

    Raises:
        GeomoeError: another word, or bfloat16 on a device that geomoe does not know in it.
    """
    if asked not in get_args(AskedPrecision):
        raise GeomoeError(f"precision {asked!r}: expected {', '.join(get_args(AskedPrecision))}")
    known = device.type in _DEVICES
    if asked == "bfloat16" and not known:
        raise GeomoeError(
            f"precision bfloat16 is for {' and '.join(_DEVICES)}, not {device.type}; use float32"
        )
    if asked == "bfloat16" or (asked == "auto" and known and measured and has_bfloat16(device)):
        return "bfloat16"
    return "float32"


def slow_precision(precision: Precision, device: torch.device) -> str | None:
    """What to say of a precision that a device imitates; ``None`` of one that it has."""
    if precision == "float32" or has_bfloat16(device):
        return None
    needs = "AVX512-BF16 or AMX" if device.type == "cpu" else "compute capability 8.0"
    return f"bfloat16 is imitated here, in several times the time, for want of {needs}; float32 is faster"


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """While it lasts, this thread computes in a precision; parameters stay as they are."""
    known = device.type in _DEVICES
    asked = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16") if known else None
    with asked or nullcontext():
        yield
