"""Where a model runs."""

from __future__ import annotations

import torch

from geomoe.errors import GeomoeError

__all__ = ["devices_of", "pick_device"]


def pick_device(device: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU.

    Raises:
        GeomoeError: for a name that torch does not know or a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise GeomoeError(f"device {device!r} cannot be used here; try --device cpu") from error
    return chosen


def devices_of(device: str) -> list[str]:
    """All that ``auto`` or ``cuda`` stands for, for one process each; else the one that is named.

    Raises:
        GeomoeError: as :func:`pick_device`.
    """
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(pick_device(device))]
