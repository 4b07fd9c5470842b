"""The checkpoint of a training: written whole or not at all, and believed only where every byte is right."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from geomoe.errors import GeomoeError
from geomoe.files import atomic_write

__all__ = ["SafeCheckpoints", "read_checkpoint"]

_PARTS: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "current_model_state": dict,  # the other one is the moving average
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "hyper_parameters": dict,
}
"""What Lightning needs to continue from, and what it has to be."""


class SafeCheckpoints(TorchCheckpointIO):
    """Lightning's files, through :func:`geomoe.files.atomic_write` and :func:`read_checkpoint`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        whole = io.BytesIO()  # torch.save names no reason where a disk is full
        torch.save(checkpoint, whole)
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as file:
            file.write(whole.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``geomoe fit`` wrote to continue from, on the CPU.

    A checkpoint is an archive whose entries have a CRC each, which torch does not look at; here all are.

    Raises:
        GeomoeError: no such file, weights alone, another kind of file, or one with so much as a bit changed.
    """
    advice = "give --ckpt_path the last.ckpt of a run"
    if not path.is_file():
        raise GeomoeError(f"there is no checkpoint {path}; {advice}")
    if path.suffix == ".safetensors":
        raise GeomoeError(
            f"{path} holds weights and no state to resume from; {advice}, or start from the weights with "
            "--model.start"
        )
    try:
        _check_bytes(path)
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is made up fails anywhere in the two readers
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise GeomoeError(f"{path} is damaged, or no checkpoint of geomoe fit: {why}; {advice}") from error
    for name, kind in _PARTS.items():
        part = found.get(name) if isinstance(found, dict) else None
        # Lightning continues without what a list lacks.
        if not isinstance(part, kind) or (isinstance(part, list) and len(part) != 1):
            raise GeomoeError(f"{path} is not a checkpoint of geomoe fit: it has no {name}; {advice}")
    return found


def _check_bytes(path: Path) -> None:
    """Raise ValueError where an entry is not as torch wrote it, whatever either reader makes of that."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # Packed ones could be long to unpack; one with attributes is a folder to torch, and not read.
        plain = all(
            entry.compress_type == zipfile.ZIP_STORED and not entry.external_attr for entry in entries
        )
        if not plain or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries are not those of torch")
        wrong = archive.testzip()
    if wrong is not None:
        raise ValueError(f"{wrong} is not as it was written")
