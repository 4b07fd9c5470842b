"""A picture of a comparison: crops side by side, and which expert drew each pixel. Needs matplotlib.

It shows what figures 2 and 3 show of Chen et al., "Heterogeneous Mixture of Experts for Remote Sensing
Image Super-Resolution", IEEE GRSL 2025.

Example:
    >>> import geomoe                                               # doctest: +SKIP
    >>> found = compare("image.png", [geomoe.load("mfg_hmoe_light", 4)])  # doctest: +SKIP
    >>> draw(found, "picture.png")                                  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from geomoe.evaluation.figures import Canvas, expert_legend, title, write_figure
from geomoe.evaluation.super_resolution.compare import Comparison, Score
from geomoe.evaluation.super_resolution.crops import cut
from geomoe.evaluation.super_resolution.layout import GAP, HEAD, LEGEND, WIDTH, Layout, shape_of
from geomoe.pipeline.tiles import Box

__all__ = ["FRAMES", "draw", "figure_of"]

FRAMES = ("#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2")
"""Colours of the frames of crops: Okabe and Ito's, distinguished with any common colour deficiency."""

_PERCENT = (0.5, 99.5)


def draw(comparison: Comparison, target: str | Path) -> None:
    """Write a picture, ``.png`` or ``.pdf``, in the place of any older one.

    The same comparison gives the same bytes, whatever the user's settings of matplotlib.

    Raises:
        GeomoeError: if it cannot be written; nothing is left there then.
    """
    write_figure(lambda: figure_of(comparison), Path(target))


def figure_of(comparison: Comparison) -> Figure:
    """The picture as a figure of matplotlib.

    Its axes are labelled by what they show: ``whole``, ``crop 1: NAME``, ``result: NAME``,
    ``experts: NAME``.
    """
    comparison = _for_display(comparison)
    layout = Layout.of(comparison)
    canvas = Canvas(WIDTH, layout.height)
    _draw_whole(canvas, layout, comparison)
    _draw_crops(canvas, layout, comparison)
    _draw_experts(canvas, layout, comparison)
    canvas.figure.text(
        GAP / WIDTH, 0.1 / layout.height, _footnote(comparison), fontsize=7, color="0.4", va="bottom"
    )
    return canvas.figure


def _draw_whole(canvas: Canvas, layout: Layout, comparison: Comparison) -> None:
    axes = canvas.axes("whole", GAP, HEAD, *layout.whole)
    image = comparison.low if comparison.truth is None else comparison.truth
    height, width = image.shape[1:]
    _show(axes, image, _extent(comparison), "antialiased")
    _frame(axes, comparison.crops)
    what = "the input" if comparison.truth is None else "the truth"
    title(axes, comparison.image, f"{what}, {width} x {height}", layout.whole[0])


def _draw_crops(canvas: Canvas, layout: Layout, comparison: Comparison) -> None:
    left, y = layout.whole[0] + 2 * GAP, HEAD
    for number, crop in enumerate(comparison.crops):
        height = layout.cell * shape_of(crop.width, crop.height)
        for place, (name, image, score) in enumerate(_crop_panels(comparison, number)):
            row, column = divmod(place, layout.columns)
            axes = canvas.axes(
                f"crop {number + 1}: {name}",
                left + column * (layout.cell + GAP),
                y + row * (height + HEAD),
                layout.cell,
                height,
            )
            _show(axes, image, (0, crop.width, crop.height, 0), "nearest")
            axes.spines[:].set(visible=True, color=_colour(number), linewidth=2)
            title(axes, name, _in_words(score), layout.cell)
        y += layout.rows * (height + HEAD)


def _crop_panels(comparison: Comparison, number: int) -> Iterator[tuple[str, Tensor, Score]]:
    crop = comparison.crops[number]
    if comparison.truth is not None:
        yield "truth", cut(comparison.truth, crop), None
    else:
        repeated = comparison.low.repeat_interleave(comparison.scale, 1).repeat_interleave(
            comparison.scale, 2
        )
        yield "input", cut(repeated, crop), None
    for panel in comparison.panels:
        yield panel.name, cut(panel.image, crop), panel.crops[number]


def _draw_experts(canvas: Canvas, layout: Layout, comparison: Comparison) -> None:
    width, height = layout.result
    for place, panel in enumerate(comparison.panels[1:]):
        row, column = divmod(place, layout.in_a_row)
        x = GAP + column * (WIDTH - GAP) / layout.in_a_row
        y = layout.top + HEAD + row * (HEAD + height + GAP)
        axes = canvas.axes(f"result: {panel.name}", x, y, width, height)
        _show(axes, panel.image, _extent(comparison), "antialiased")
        score = _in_words(panel.whole)
        title(axes, panel.name, f"whole image {score}" if score else "", width)
        axes = canvas.axes(f"experts: {panel.name}", x + width + GAP, y, width, height)
        if panel.experts is None:
            axes.set_facecolor("0.94")
            axes.text(0.5, 0.5, f"no expert map:\nit {panel.no_experts}", ha="center", va="center",
                      transform=axes.transAxes, fontsize=8, color="0.3")  # fmt: skip
            continue
        axes.imshow(panel.experts.picture, extent=_extent(comparison), interpolation="nearest")
        _frame(axes, comparison.crops)
        title(axes, *panel.experts.title, width)
        legend = canvas.axes(f"legend: {panel.name}", x + 2 * (width + GAP), y, LEGEND, height)
        expert_legend(legend, LEGEND, height, panel.experts)


def _for_display(comparison: Comparison) -> Comparison:
    """The same with values to look at: 8-bit ones as they are, others between percentiles of each band.

    All panels share one stretch, that of the truth or, without one, of the input.
    """
    if comparison.eight_bit:
        return comparison
    reference = comparison.low if comparison.truth is None else comparison.truth
    ends = np.percentile(reference.flatten(1).numpy(), _PERCENT, axis=1)
    low, high = (torch.from_numpy(end).float()[:, None, None] for end in ends)

    def stretch(image: Tensor) -> Tensor:
        return (image - low) / (high - low).clamp_min(1e-6)

    return replace(
        comparison,
        low=stretch(comparison.low),
        truth=None if comparison.truth is None else stretch(comparison.truth),
        panels=tuple(replace(panel, image=stretch(panel.image)) for panel in comparison.panels),
    )


def _extent(comparison: Comparison) -> tuple[float, float, float, float]:
    """Every whole image is laid on high-resolution pixels, so that frames are too."""
    height, width = (n * comparison.scale for n in comparison.low.shape[1:])
    return (0, width, height, 0)


def _show(axes: Axes, image: Tensor, extent: tuple[float, float, float, float], interpolation: str) -> None:
    rgb = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    axes.imshow(pixels, extent=extent, interpolation=interpolation)


def _frame(axes: Axes, crops: tuple[Box, ...]) -> None:
    for number, crop in enumerate(crops):
        for colour, width in (("black", 3.0), (_colour(number), 1.6)):
            frame = Rectangle((crop.x, crop.y), crop.width, crop.height, fill=False, color=colour, lw=width)
            axes.add_patch(frame).set_clip_on(False)


def _colour(number: int) -> str:
    return FRAMES[number % len(FRAMES)]


def _in_words(score: Score) -> str:
    return "" if score is None else f"{score[0]:.2f} dB  {score[1]:.4f}"


def _footnote(comparison: Comparison) -> str:
    said = [f"x{comparison.scale}"]
    if comparison.truth is not None:
        said[0] += f" of an input downsampled by {comparison.degradation}"
        said.append(f"PSNR and SSIM by protocol {comparison.protocol}")
    if comparison.chosen:
        said.append("the crop is where the panels differ most")
    if not comparison.eight_bit:
        said.append("shown from the {:g} to the {:g} percentile of each band".format(*_PERCENT))
    return "; ".join(said)
