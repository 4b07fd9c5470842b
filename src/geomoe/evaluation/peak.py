"""Peak memory of one tile through trained weights, in a process that does nothing else.

    python -m geomoe.evaluation.peak WEIGHTS SIZE DEVICE

Prints megabytes: of the process, Python and libraries included; on an accelerator, of its memory.
"""

from __future__ import annotations

import resource
import sys

import torch

from geomoe.models.weights import load

__all__ = ["main"]


def main(weights: str, size: int, device: str) -> float:
    """Load, run once on a random tile, and return the peak in MB."""
    loaded = load(weights)
    model = loaded.model.to(device)
    x = torch.rand(1, loaded.contract.bands, size, size, device=device)
    with torch.inference_mode():
        model(x)
    if x.is_cuda:
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], int(sys.argv[2]), sys.argv[3]):.1f}\n")
