"""Peak memory of one tile through trained weights, in a process that does nothing else.

    python -m geomoe.evaluation.peak WEIGHTS SIZE DEVICE

Prints megabytes: of the process, Python and libraries included; on an accelerator, of its memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from geomoe.errors import GeomoeError
from geomoe.models.weights import load

__all__ = ["main", "peak_of", "process_peak"]


def main(weights: str, size: int, device: str) -> float:
    """Load, run once on a random tile, and return the peak in MB."""
    loaded = load(weights)
    model = loaded.model.to(device)
    x = torch.rand(1, loaded.contract.bands, size, size, device=device)
    with torch.inference_mode():
        model(x)
    if x.is_cuda:
        return torch.cuda.max_memory_allocated(device) / 1e6
    return process_peak() / 1e6


def peak_of(weights: Path, size: int, device: torch.device) -> float:
    """What :func:`main` gives in a process of its own, MB; raises GeomoeError where that fails."""
    command = [sys.executable, "-m", __name__, str(weights), str(size), str(device)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout)
    except (subprocess.CalledProcessError, ValueError) as error:
        raise GeomoeError(f"the memory of {weights} could not be measured: {error}") from error


def process_peak() -> int:
    """Most bytes that this process has held.

    Not ``ru_maxrss`` on Linux: a process inherits that of the one that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], int(sys.argv[2]), sys.argv[3]):.1f}\n")
