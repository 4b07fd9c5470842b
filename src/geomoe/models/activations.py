"""How much memory the features of a network take, counted once and kept on the card of its weights."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geomoe.models.contract import ModelContract

__all__ = ["bytes_per_pixel", "live_bytes"]

_SIDE = 96
"""Of the image that is shown, in pixels."""
_KNOWN: dict[str, int] = {}


def bytes_per_pixel(model: nn.Module) -> int:
    """The most bytes of features that live at once, for each pixel of an image; 0 where that is no use.

    A network of the same configuration with random weights runs once in float32, on a processor: the sizes of
    features depend on neither weights nor device, and on the size of the image in proportion. The model
    itself is left alone, as it may be trained, compiled or half on another device.

    Args:
        model: with a ``config``, of which its class makes others. Of one without, or that takes no tiles: 0.
    """
    contract: ModelContract | None = getattr(model, "contract", None)
    config = getattr(model, "config", None)
    if contract is None or contract.tiling is None or config is None:
        return 0
    key = f"{type(model).__qualname__} {config!r}"
    if key not in _KNOWN:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            image = torch.rand(1, contract.bands, _SIDE, _SIDE)
            _KNOWN[key] = round(live_bytes(type(model)(config).eval(), image) / _SIDE**2)
    return _KNOWN[key]


def live_bytes(model: nn.Module, image: Tensor) -> int:
    """The most bytes of tensors that ``model(image)`` makes and that live at once."""
    with torch.inference_mode(), _Live([*model.parameters(), *model.buffers(), image]) as live:
        model(image)
    most: int = live.most
    return most


class _Live(TorchDispatchMode):
    """Adds up the memory of all tensors that operations give, until nobody holds it any more.

    Args:
        there: tensors whose memory does not count.
    """

    def __init__(self, there: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._held = {tensor.untyped_storage()._cdata for tensor in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._held:
            self._held.add(key)
            self.now += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.now -= size
