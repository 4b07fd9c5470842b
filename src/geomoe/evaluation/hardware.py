"""What a measurement ran on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

__all__ = ["hardware"]


def hardware(device: torch.device | str = "cpu") -> str:
    """The accelerator's name, or the processor's with the number of threads that torch uses."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"
