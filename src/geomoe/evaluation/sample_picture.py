"""A picture of samples and what models say of them: labels, numbers or maps of classes. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from geomoe.data.legend import colours_for
from geomoe.data.sample import Batch
from geomoe.data.split import Split
from geomoe.errors import GeomoeError
from geomoe.evaluation.evaluators import Drawn
from geomoe.evaluation.expert_maps import (
    ExpertMap,
    check_layer,
    expert_map,
    main_experts,
    shared_by_experts,
    why_no_map,
)
from geomoe.evaluation.figures import Canvas, expert_legend, title, write_figure
from geomoe.evaluation.samples import batches
from geomoe.metrics.measures import show
from geomoe.models import LoadedModel
from geomoe.models.contract import Output
from geomoe.models.device import pick_device
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline.layers.routing import unit_of
from geomoe.printable import counted
from geomoe.tasks.families import family
from geomoe.tasks.task import Task

__all__ = ["draw_samples"]

_GAP, _HEAD, _FOOT, _LEGEND = 0.12, 0.38, 0.3, 2.2
"""Inches: between parts, for a title of two lines, for the line below, of a legend."""
_LINE, _MOST = 0.17, 10
"""Inches of a legend's line, and how many one of experts has at most."""
_RIGHT, _WRONG = "#0072b2", "#d55e00"
_PERCENT = (2, 98)


@dataclass(frozen=True)
class _Answer:
    """What a model says of a sample, numbers, ``[classes]`` or ``[classes, H, W]``, and by which experts.

    ``instances`` are its numbers ``[H, W]`` of those, and of the true ones, where it knows any.
    """

    values: Tensor
    scores: dict[str, float]
    experts: ExpertMap | None
    no_experts: str
    instances: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"none": self.no_experts} if self.experts is None else self.experts.as_dict()


@dataclass(frozen=True)
class _Sample:
    name: str
    batch: Batch
    answers: tuple[_Answer, ...]

    @property
    def truth(self) -> Tensor:
        """The label, the numbers, or the class of each pixel."""
        return self.batch[next(key for key in ("mask", "label", "target") if key in self.batch)][0]


_Samples = Sequence[_Sample]
_Names = Sequence[str]


def draw_samples(
    models: Sequence[LoadedModel],
    root: Path,
    target: Path,
    *,
    split: Split = "test",
    samples: int | None = None,
    layer: int = -1,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Drawn:
    """Draw samples from all over a part of the data, with truth, answers and experts.

    Args:
        models: of one task and the same classes, of different names.
        root: of the data, as for :func:`geomoe.evaluate`; split as the first model's card says.
        target: the picture.
        split: of the data.
        samples: how many at most; 12 with labels, 3 with maps if None.
        layer: of those that route in a model, from 1; -1 is the last.
        device: of the models.
        progress: called with samples done and samples in all.

    Raises:
        GeomoeError: samples that cannot be read, a layer that no model has, or models that are not alike, or
            give neither labels nor classes of pixels.
    """
    output = _one_output(models)
    check_layer(models, layer)
    usual, draw = _KINDS[output.kind]
    of = family(models[0].card.task)
    named = of.data.named(root, split, models[0])
    if not len(named.samples):
        raise GeomoeError(f"{root} holds no sample of the split {split}; choose another one")
    total = min(samples or usual, len(named.samples))
    places = [i * len(named.samples) // total for i in range(total)]
    tasks = [of.task.of(model).to(pick_device(device)).eval() for model in models]
    found = []
    for done, place in enumerate(places, 1):
        ((name,), batch), *_ = batches([named.samples[place]])
        answers = tuple(_answer(task, model, batch, layer) for task, model in zip(tasks, models, strict=True))
        found.append(_Sample(name, batch, answers))
        if progress:
            progress(done, total)
    names = [model.name for model in models]
    write_figure(lambda: draw(found, names, output), target)
    said = {
        each.name: {
            "truth": _truth(each, output),
            "answers": {
                name: {**_said(answer, output), "experts": answer.as_dict()}
                for name, answer in zip(names, each.answers, strict=True)
            },
        }
        for each in found
    }
    rows = [[each.name, _truth(each, output), *(_short(a, output) for a in each.answers)] for each in found]
    return Drawn(
        {"data": named.data, "split": split, "samples": said},
        f"{split} samples of {named.data}",
        ["sample", "truth", *names],
        rows,
        f"{counted(total, 'sample')}, {counted(len(models), 'model')}",
    )


def _one_output(models: Sequence[LoadedModel]) -> Output:
    """What all models give."""
    outputs = [output for model in models for output in model.contract.outputs.values()]
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise GeomoeError(f"two of {', '.join(names)} have one name; give each weights file once")
    if outputs[0].kind not in _KINDS:
        raise GeomoeError(f"{names[0]} gives {outputs[0].describe()}, of which there is no picture")
    if any((output.kind, output.classes) != (outputs[0].kind, outputs[0].classes) for output in outputs):
        raise GeomoeError(f"{' and '.join(names)} know different classes; compare those of the same ones")
    return outputs[0]


def _answer(task: Task, model: LoadedModel, batch: Batch, layer: int) -> _Answer:
    trace = RoutingTrace()
    with torch.inference_mode():
        place = next(task.model.parameters()).device
        # Without the truth: asked are all pixels, not those alone that have a class.
        here = {key: value.to(place) for key, value in batch.items() if key != "mask"}
        values = task.answer(task.predict(here, trace)).cpu()
        instances = None
        if task.instance_metrics() is not None:
            said, true = task.instances({key: value.to(place) for key, value in batch.items()})
            instances = (said[0, ..., 1].cpu().numpy(), true[0, ..., 1].cpu().numpy())
    scores = {name: float(value[0]) for name, value in task.by_item(values, batch).items()}
    height, width = batch["image"].shape[2:]
    tiling = model.contract.tiling
    multiple = None if tiling is None else tiling.multiple
    if why := why_no_map(task.model, trace, layer, height, width, multiple):
        return _Answer(values[0], scores, None, why, instances)
    unit = unit_of(trace[layer - (layer > 0)], height, width, multiple)
    assert unit is not None
    if unit == "image":
        experts = shared_by_experts(trace, layer, height, width)
    else:
        experts = main_experts(trace, layer, height, width, multiple)
    if "valid" in batch:
        experts = np.where(batch["valid"][0].numpy(), experts, -1)
    drawn = expert_map(model.model, trace, layer, unit, experts)
    return _Answer(values[0], scores, drawn, "", instances)


def _best(answer: _Answer) -> tuple[int, float]:
    """The most probable class, and its probability."""
    confidence, place = answer.values.max(0)
    return int(place), float(confidence)


def _said(answer: _Answer, output: Output) -> dict[str, Any]:
    if output.kind == "classes":
        return {"scores": answer.scores}
    if output.kind == "values":
        return {"values": answer.values.ravel().tolist(), "scores": answer.scores}
    place, confidence = _best(answer)
    return {"label": output.classes[place], "confidence": confidence}


def _short(answer: _Answer, output: Output) -> str:
    if output.kind == "classes":
        return show(answer.scores)
    if output.kind == "values":
        return _numbers(answer.values)
    place, confidence = _best(answer)
    return f"{output.classes[place]} {confidence:.1%}"


def _truth(sample: _Sample, output: Output) -> str:
    if output.kind == "classes":
        return f"{int((sample.truth >= 0).sum())} pixels"
    if output.kind == "values":
        return _numbers(sample.truth)
    return output.classes[int(sample.truth)]


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.ravel().tolist())


def _figure_of_labels(samples: _Samples, names: _Names, output: Output) -> Figure:
    """Cards of labels or numbers: the image, which experts its squares went to, and the answers below.

    Experts that are weighed for the whole image share the square by their weights.
    """
    routed = [i for i in range(len(names)) if _maps(samples, i)]
    side, foot = 1.3, 0.18 * len(names) + _GAP
    wide, high = side * (1 + len(routed)) + 2 * _GAP, _HEAD + side + foot
    columns = min(max(int(10 / wide), 1), len(samples))
    rows = -(-len(samples) // columns)
    width = _GAP + columns * wide + (_LEGEND if routed else 0)
    canvas = Canvas(width, max(rows * high, _legends_height(samples, routed)) + _FOOT)
    for place, each in enumerate(samples):
        row, column = divmod(place, columns)
        x, y = _GAP + column * wide, row * high + _HEAD
        axes = canvas.axes(f"image: {each.name}", x, y, side, side)
        axes.imshow(_picture(each.batch), interpolation="antialiased")
        title(axes, _truth(each, output), Path(each.name).name, side)
        for number, i in enumerate(routed, 1):
            axes = canvas.axes(f"experts: {each.name}: {names[i]}", x + number * (side + 0.06), y, side, side)
            _draw_experts(axes, each.answers[i], "experts", names[i] if len(names) > 1 else "", side)
        below = canvas.axes(f"answers: {each.name}", x, y + side, wide - _GAP, foot)
        below.set(xlim=(0, wide - _GAP), ylim=(foot, 0))
        for number, (name, answer) in enumerate(zip(names, each.answers, strict=True)):
            said, colour = _short(answer, output), "black"
            if output.kind == "label":
                right = _best(answer)[0] == int(each.truth)
                said, colour = f"{'right' if right else 'wrong'}: {said}", _RIGHT if right else _WRONG
            below.text(
                0.02, 0.1 + 0.18 * number, said if len(names) == 1 else f"{name} {said}", fontsize=7,
                va="center", color=colour, parse_math=False,
            )  # fmt: skip
    _expert_legends(canvas, samples, names, routed, width - _LEGEND + _GAP, _HEAD)
    _foot(canvas, samples[0].batch, output, width)
    return canvas.figure


def _figure_of_maps(samples: _Samples, names: _Names, output: Output) -> Figure:
    """A row for each sample: image, truth, and the map and the experts of each model."""
    routed = [i for i in range(len(names)) if _maps(samples, i)]
    panels = 2 + len(names) + len(routed)
    side = min(max((14 - _LEGEND) / panels - _GAP, 1.6), 3.2)
    colours = _class_colours(output)
    heights = [side * each.batch["image"].shape[2] / each.batch["image"].shape[3] for each in samples]
    left = _GAP + panels * (side + _GAP)
    lines = _HEAD + _LINE * len(output.classes) + _legends_height(samples, routed)
    tall = max(sum(heights) + len(samples) * _HEAD, lines) + _FOOT
    canvas = Canvas(left + _LEGEND, tall)
    y = _HEAD
    for each, height in zip(samples, heights, strict=True):
        seen = np.asarray(each.batch["valid"][0]) if "valid" in each.batch else True
        true = _outlined(colours[each.truth.numpy()], [a.instances[1] for a in each.answers if a.instances])
        drawn = [("image", "", _picture(each.batch)), ("truth", each.name, true)]
        for name, answer in zip(names, each.answers, strict=True):
            map_ = np.where(seen, answer.values.argmax(0).numpy(), -1)
            found = [answer.instances[0]] if answer.instances else []
            drawn.append((name, show(answer.scores), _outlined(colours[map_], found)))
        for place, (name, below, pixels) in enumerate(drawn):
            axes = canvas.axes(f"{name}: {each.name}", _GAP + place * (side + _GAP), y, side, height)
            axes.imshow(pixels, interpolation="nearest")
            title(axes, name, below, side)
        for place, i in enumerate(routed, len(drawn)):
            x = _GAP + place * (side + _GAP)
            axes = canvas.axes(f"experts: {each.name}: {names[i]}", x, y, side, height)
            _draw_experts(axes, each.answers[i], "experts", names[i] if len(names) > 1 else "", side)
        y += height + _HEAD
    shown = {int(k) for each in samples for k in each.truth.unique() if k >= 0}
    shown |= {int(k) for each in samples for a in each.answers for k in a.values.argmax(0).unique()}
    handles = [Patch(color=tuple(colours[k] / 255), label=output.classes[k]) for k in sorted(shown)]
    legend = canvas.axes("legend", left, _HEAD, _LEGEND, _LINE * len(handles))
    legend.legend(handles=handles, loc="upper left", fontsize=7, frameon=False, borderpad=0)
    _expert_legends(canvas, samples, names, routed, left, 2 * _HEAD + _LINE * len(handles))
    _foot(canvas, samples[0].batch, output, left + _LEGEND)
    return canvas.figure


_KINDS: dict[str, tuple[int, Callable[[_Samples, _Names, Output], Figure]]] = {
    "label": (12, _figure_of_labels),
    "values": (12, _figure_of_labels),
    "classes": (3, _figure_of_maps),
}
"""By what models give: how many samples are drawn unless a number is given, and how."""


def _draw_experts(axes: Axes, answer: _Answer, head: str, below: str, width: float) -> None:
    if answer.experts is None:
        axes.text(0.5, 0.5, f"no expert map:\nit {answer.no_experts}", ha="center", va="center",
                  transform=axes.transAxes, fontsize=7, color="0.3")  # fmt: skip
        return
    axes.imshow(answer.experts.picture, interpolation="nearest")
    title(axes, head, below, width)


def _maps(samples: _Samples, model: int) -> list[ExpertMap]:
    return [found for each in samples if (found := each.answers[model].experts) is not None]


def _legends_height(samples: _Samples, routed: Sequence[int]) -> float:
    return sum(_HEAD + _LINE * min(len(_maps(samples, i)[0].names), _MOST) for i in routed)


def _expert_legends(
    canvas: Canvas, samples: _Samples, names: _Names, routed: Sequence[int], x: float, y: float
) -> None:
    """Of every model that routes, its experts with their shares over all samples that are shown."""
    for i in routed:
        there = _maps(samples, i)
        joined = np.concatenate([one.experts[one.experts >= 0] for one in there])
        first = there[0]
        over = ExpertMap(
            first.layer, first.layers, first.unit, first.group_sizes, first.kernel_sizes, joined[None]
        )
        wide, height = _LEGEND - 2 * _GAP, _LINE * min(len(first.names), _MOST)
        axes = canvas.axes(f"legend: {names[i]}", x, y, wide, height)
        title(
            axes, names[i] if len(routed) > 1 else "experts, all samples", over.title[1], _LEGEND - 2 * _GAP
        )
        expert_legend(axes, wide, height, over)
        y += height + _HEAD


def _foot(canvas: Canvas, batch: Batch, output: Output, width: float) -> None:
    bands = _bands(batch["image"].shape[1])
    said = [f"bands {', '.join(str(band + 1) for band in bands)} are red, green, blue"]
    if _stretched(batch):
        said.append("shown from the {:g} to the {:g} percentile of each band".format(*_PERCENT))
    if output.kind == "classes":
        said.append("white: no class is known, or not to be looked at in this part")
    text = "; ".join(said[batch["image"].shape[1] in (1, 3) :])
    canvas.figure.text(_GAP / width, 0.01, text, fontsize=7, color="0.4", va="bottom")


def _outlined(pixels: NDArray[np.uint8], instances: Sequence[NDArray[np.int64]]) -> NDArray[np.uint8]:
    """``[H, W, 3]`` with a black line around each of the first instances ``[H, W]``, if there are any."""
    for numbers in instances[:1]:
        wide = np.pad(numbers, 1, mode="edge")
        beside = (wide[1:-1, 2:], wide[2:, 1:-1], wide[1:-1, :-2], wide[:-2, 1:-1])
        pixels = np.where(
            ((numbers > 0) & np.any([numbers > one for one in beside], 0))[..., None], 0, pixels
        )
    return pixels


def _class_colours(output: Output) -> NDArray[np.uint8]:
    """``[classes + 1, 3]``; the last, at -1, is white."""
    found = output.colours or colours_for(len(output.classes))
    return (np.array([*map(to_rgb, found), (1.0, 1.0, 1.0)]) * 255).round().astype(np.uint8)


def _bands(count: int) -> list[int]:
    """Those that are shown as red, green and blue: of many, three from all over the spectrum."""
    return [0, 0, 0] if count < 3 else [0, 1, 2] if count == 3 else [5 * count // 6, count // 2, count // 6]


def _stretched(batch: Batch) -> bool:
    image = batch["image"]
    return image.shape[1] > 3 or float(image.max()) > 1 or float(image.min()) < 0


def _picture(batch: Batch) -> NDArray[np.uint8]:
    """``[H, W, 3]``, white where there is nothing."""
    image = batch["image"][0].numpy()
    rgb = image[_bands(len(image))].astype(np.float64)
    seen = batch["valid"][0].numpy() if "valid" in batch else np.ones(rgb.shape[1:], bool)
    if _stretched(batch) and seen.any():
        low, high = np.percentile(rgb[:, seen], _PERCENT, axis=1)
        rgb = (rgb - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
    rgb[:, ~seen] = 1
    return (rgb.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
