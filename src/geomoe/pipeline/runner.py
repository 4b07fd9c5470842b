"""Any number of bands through a model that takes a fixed number."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.known import Known
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.device import pick_device
from geomoe.models.precision import Precision, computing_in
from geomoe.models.reference import RoutingReference
from geomoe.moe.plan import LastSignals
from geomoe.raster.read.radiometry import Radiometry, as_they_are, decide_radiometry
from geomoe.raster.read.sample import SceneSample
from geomoe.raster.read.scene import Scene

__all__ = [
    "Predictor",
    "Runner",
    "activations_of",
    "band_groups",
    "check_scale",
    "hardware",
    "is_measured",
    "join_bands",
    "options_of",
    "pick_device",
    "radiometry_of",
    "takes_values",
    "tiling_of",
]

_Item = TypeVar("_Item")
_THREADS = threading.Lock()
"""Of the one who sets how many torch has, which is the process's."""


class Predictor(Protocol):
    """A model with its weights, ready to run."""

    @property
    def model(self) -> nn.Module:
        """``model(x, trace=None)``: ``[B, C, H, W]`` float32 in, ``[B, D, H * scale, W * scale]`` out.

        Values of images are 0 to 1 for nearly all pixels. A `RoutingTrace` gets the routing plans. One whose
        contract is ``informed`` takes ``known``, too; one that gives the classes of pixels takes ``valid``,
        or ``present`` where it is of several sensors.
        """

    @property
    def contract(self) -> ModelContract:
        """What the model takes and gives."""

    @property
    def name(self) -> str:
        """Of model and weights, for the output's tags."""

    @property
    def hash(self) -> str:
        """Of the weights, for the output's tags."""

    @property
    def reference(self) -> RoutingReference | None:
        """What the last router saw in training, if that is known."""


def check_scale(model: Predictor, scale: int | None) -> None:
    """Refuse weights that were trained for another scale than one that is asked for, or give no image then.

    Raises:
        GeomoeError: with the scale that the weights are for, or with what they give.
    """
    if scale is None:
        return
    model.contract.expect("image", model.name)
    if model.contract.scale != scale:
        raise GeomoeError(
            f"{model.name} has weights for scale {model.contract.scale}, scale {scale} was asked for; "
            f"use --scale {model.contract.scale} or other weights"
        )


def tiling_of(model: Predictor) -> Tiling:
    """How a scene is cut for a model; raises GeomoeError for one that sees whole samples."""
    if model.contract.tiling is None:
        raise GeomoeError(f"{model.name} sees whole samples; expected a model that takes a scene in tiles")
    return model.contract.tiling


def is_measured(model: Predictor) -> bool:
    """Whether the weights have a card that says what computing in bfloat16 costs."""
    return bool(getattr(getattr(model, "card", None), "bfloat16", None))


def activations_of(model: Predictor) -> int:
    """Bytes of features for each pixel of a tile, by the card of the weights; 0 where it does not say."""
    return int(getattr(getattr(model, "card", None), "activations", 0))


def options_of(model: Predictor) -> dict[str, Any] | None:
    """Every option of a model, as JSON holds them; ``None`` of one that has none."""
    config = getattr(model.model, "config", None)
    return json.loads(json.dumps(asdict(config))) if is_dataclass(config) else None  # type: ignore[arg-type]


def takes_values(model: Predictor) -> bool:
    """Whether a model is shown the values of a scene as they are, by the card of its weights."""
    return bool(getattr(getattr(model, "card", None), "radiometry", "unit") == "values")


def radiometry_of(model: Predictor, scene: Scene, sample: SceneSample) -> Radiometry:
    """How values of a scene are brought to a model's range, by the card of its weights."""
    if takes_values(model):
        return as_they_are(len(sample.values))
    return decide_radiometry(scene.dtype, sample)


def band_groups(bands: Sequence[_Item], size: int) -> list[tuple[_Item, ...]]:
    """Cut bands, in their order, into groups of ``size``; the last band of all fills up the last group.

    A single band for a model of three is thus shown three times. See `Runner` for what becomes of copies.
    """
    groups = [tuple(bands[i : i + size]) for i in range(0, len(bands), size)]
    return [group + group[-1:] * (size - len(group)) for group in groups]


def join_bands(
    passes: Iterable[tuple[tuple[int, ...], NDArray[np.float32]]], bands: int
) -> NDArray[np.float32]:
    """An image ``[bands, H, W]`` of passes over `band_groups` of its bands, from 0; copies are averaged."""
    out: NDArray[np.float32] | None = None
    for group, result in passes:
        if out is None:
            out = np.empty((bands, *result.shape[1:]), dtype=np.float32)
        for band in dict.fromkeys(group):
            copies = [i for i, member in enumerate(group) if member == band]
            out[band] = result[copies].mean(axis=0)
    assert out is not None
    return out


def hardware(device: torch.device) -> str:
    """What decides how numbers are rounded: the device, and of a processor its instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


class Runner:
    """Runs a model on arrays of one tile.

    Bands are taken in groups of ``contract.bands``, each group in a pass of its own.

    Args:
        predictor: model and weights.
        device: that computes.
        precision: in which it does.
        known: what is known of every tile; told to a model that asks for it.
    """

    def __init__(
        self,
        predictor: Predictor,
        device: torch.device,
        precision: Precision = "float32",
        known: Known | None = None,
    ) -> None:
        self.precision = precision
        self._contract = predictor.contract
        self._known = Known.batch([known or Known()]).to(device)  # [1, Known.WIDTH]
        self._name = predictor.name
        self._device = device
        self._model = predictor.model.to(device).eval()

    @property
    def hardware(self) -> str:
        """As :func:`hardware` calls the device."""
        return hardware(self._device)

    @contextmanager
    def workers(self, count: int) -> Iterator[tuple[Executor, int]]:
        """A pool to call this in, and how many calls it takes at once: ``count``, on a processor.

        Each has one thread of its own: how sums are split over threads decides how they are rounded, and the
        result must not depend on the number of processors.
        """
        with _THREADS if self._device.type == "cpu" else nullcontext():
            yield from self._workers(count)

    def _workers(self, count: int) -> Iterator[tuple[Executor, int]]:
        before = torch.get_num_threads()
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(count) as pool:
                yield pool, count
        finally:
            torch.set_num_threads(before)

    def __call__(
        self, data: NDArray[np.float32], heard: Callable[[LastSignals], None] | None = None
    ) -> NDArray[np.float32]:
        """One tile, ``[C, H, W]``, by a model that gives an image; as `passes` and `join_bands`."""
        return join_bands(self.passes(data, {}, heard), len(data))

    def passes(
        self,
        data: NDArray[np.float32],
        told: Mapping[str, NDArray[np.bool_]],
        heard: Callable[[LastSignals], None] | None = None,
        beside: Sequence[str] = (),
    ) -> Iterator[tuple[tuple[int, ...], NDArray[np.float32]]]:
        """Run the model on the groups of bands of one tile.

        Args:
            data: ``[C, H, W]`` float32 in the model's range, finite.
            told: to the model beside the bands, by the names of its arguments.
            heard: is given the trace of each pass, as it ends; no pass is traced if ``None``.
            beside: of the contract's names, what is wanted; its bands follow those of the output.

        Yields:
            Bands of a group, from 0, and ``[D, H * scale, W * scale]`` float32; perhaps not finite, which is
            for the caller to judge.

        Raises:
            GeomoeError: if memory does not suffice, or a result is not of the size promised.
        """
        bands, height, width = data.shape
        scale = self._contract.scale
        for group in band_groups(range(bands), self._contract.bands):
            trace = None if heard is None else LastSignals()
            result = self._pass(data[list(group)], told, trace, beside)
            if heard is not None and trace is not None:
                heard(trace)
            if result.shape[1:] != (height * scale, width * scale):
                raise GeomoeError(
                    f"{self._name} made {result.shape[2]} x {result.shape[1]} pixels of {width} x {height}; "
                    f"expected {scale} times as many each way, so these weights cannot be used"
                )
            yield group, result

    def _pass(
        self,
        group: NDArray[np.float32],
        told: Mapping[str, NDArray[np.bool_]],
        trace: LastSignals | None,
        beside: Sequence[str],
    ) -> NDArray[np.float32]:
        here = computing_in(self.precision, self._device)
        with _out_of_memory(), torch.inference_mode(), _repeatable(self._device), here:
            batch = torch.from_numpy(group).to(self._device)[None]  # [1, C, H, W]
            given: dict[str, Any] = {"known": self._known} if self._contract.informed else {}
            given |= {} if trace is None else {"trace": trace}
            given |= {name: torch.from_numpy(of).to(self._device)[None] for name, of in told.items()}
            result: Tensor
            if beside:
                said = self._model.answers(batch, **given)  # type: ignore[operator]
                result = torch.cat([said[name] for name in (*self._contract.outputs, *beside)], 1)
            else:
                result = self._model(batch, **given)
            array: NDArray[np.float32] = result[0].float().cpu().numpy()
        return array


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    if device.type == "cpu":  # where several threads are here at once, and the flags are theirs in common
        yield
        return
    # cuDNN may otherwise pick another algorithm, with other roundings, from one run to the next.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def _out_of_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if short or "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text:
            raise GeomoeError(
                "memory does not suffice for a tile this large; use a smaller --tile"
            ) from error
        raise
