"""What a network for small devices costs on one core, and what is left of it in int8.

    python benchmarks/edge.py mobile_moe.safetensors dense.safetensors --data FOLDER_OF_EUROSAT

Of weights of classification: multiply-adds of an image, and bytes that its operations read and write (each
operation's inputs and outputs, views left out: what would move if nothing stayed in a cache), as proxies of
energy; then accuracy on the test images, size and time of an image in PyTorch, as an ONNX file in float32,
and with weights in int8 (dynamic), or activations too (static, their ranges from training images). Images go
one at a time, all ways in turns; milliseconds are the processor's on one thread, a median.

In the ONNX file all experts see all rows, and the gates decide: the operations of a file do not depend on
what is shown. How many more that are is said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.samples import batches, score_samples
from geomoe.models.weights import LoadedModel, load
from geomoe.moe.flops import count_flops
from geomoe.tasks.families import family

CALIBRATION = 64
"""Training images whose activations tell the ranges of int8."""

Answer = Callable[[Tensor], Tensor]
"""Logits ``[1, K]`` of an image ``[1, bands, H, W]``."""


class Moved(TorchDispatchMode):
    """Adds up bytes of all inputs and outputs of operations that are no views."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            touched = tree_leaves((args, kwargs, out))
            self.bytes += sum(t.numel() * t.element_size() for t in touched if isinstance(t, Tensor))
        return out


def costs(model: nn.Module, image: Tensor) -> dict[str, float]:
    """Of one image through PyTorch."""
    with torch.inference_mode():
        macs = count_flops(lambda: model(image)) / 2e6
        with Moved() as moved:
            model(image)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "mmac": round(macs, 2),
        "mb_moved": round(moved.bytes / 1e6, 2),
    }


class Shown(CalibrationDataReader):
    """Images for a session's input, one after another."""

    def __init__(self, name: str, images: list[Tensor]) -> None:
        self.left = iter({name: image.numpy()} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[type-arg]
        """The next, None after the last."""
        return next(self.left, None)


def written(model: nn.Module, images: list[Tensor], folder: Path) -> tuple[dict[str, Path], float]:
    """ONNX files by what they are, and millions of multiply-adds of an image in them."""
    files = {
        name: folder / f"{name.replace(' ', '_')}.onnx" for name in ("float32", "int8 dynamic", "int8 static")
    }
    program = torch.onnx.export(model, (images[0],), dynamo=True, verbose=False)
    assert program is not None
    raw, name = folder / "raw.onnx", program.model.graph.inputs[0].name
    program.save(raw)
    quant_pre_process(raw, files["float32"], skip_symbolic_shape=True)
    graph = onnx.load(files["float32"])
    del graph.graph.value_info[:]  # shapes from before the optimisation, which contradict those after it
    onnx.save(graph, files["float32"])
    quantize_dynamic(files["float32"], files["int8 dynamic"], weight_type=QuantType.QInt8)
    quantize_static(
        files["float32"], files["int8 static"], Shown(str(name), images), per_channel=True,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    with torch.inference_mode():
        macs = count_flops(lambda: program.exported_program.module()(images[0])) / 2e6
    return files, macs


def session(path: Path) -> Answer:
    """An ONNX file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    run = onnxruntime.InferenceSession(path, options)
    name = run.get_inputs()[0].name
    return lambda image: torch.from_numpy(run.run(None, {name: image.numpy()})[0])


def images_of(loaded: LoadedModel, root: Path, part: str, most: int) -> list[Tensor]:
    """Some of a part of the data, ``[1, bands, H, W]`` each, evenly among its samples."""
    samples = family(loaded.card.task).data.named(root, part, loaded).samples
    some = samples[:: max(len(samples) // most, 1)][:most]
    return [image for _, batch in batches(some) for image in batch["image"].split(1)]


def measure(path: str, root: Path, rounds: int, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each way of running one file of weights."""
    loaded = load(path)
    model, of = loaded.model.eval(), family(loaded.card.task)
    files, macs = written(model, images_of(loaded, root, "fit", CALIBRATION), folder)

    @torch.inference_mode()
    def eager(image: Tensor) -> Tensor:
        return model(image)  # type: ignore[no-any-return]

    ways: dict[str, Answer] = {"pytorch": eager} | {name: session(file) for name, file in files.items()}
    shown = images_of(loaded, root, "test", rounds)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for image in shown:
        for name, answer in ways.items():
            began = time.process_time()
            answer(image)
            seconds[name].append(time.process_time() - began)
    task, samples = of.task.of(loaded), of.data.named(root, "test", loaded)
    for name, answer in ways.items():

        def answered(batch: dict[str, Tensor], answer: Answer = answer) -> Tensor:
            return task.answer(torch.cat([answer(image) for image in batch["image"].split(1)]))

        found = score_samples(task, samples, answered)
        size = Path(path).stat().st_size if name == "pytorch" else files[name].stat().st_size
        yield {
            "weights": path,
            "way": name,
            **costs(model, shown[0]),
            "mmac_onnx": round(macs, 2),
            "ms": round(1000 * statistics.median(seconds[name]), 3),
            "bytes": size,
            task.monitor: round(found.overall.values[task.monitor], 4),
        }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="+", help="files of weights of classification")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50, help="images that time is measured on")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = []
    for path in args.weights:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
            rows += list(measure(path, args.data, args.rounds, Path(folder)))
    said = {"rows": rows, "hardware": hardware(), "torch": torch.__version__}
    said |= {"onnxruntime": onnxruntime.__version__, "date": datetime.now(UTC).date().isoformat()}
    if args.json:
        print(json.dumps(said, indent=2))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
