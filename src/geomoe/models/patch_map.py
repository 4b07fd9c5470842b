"""Networks that say of a patch what its middle shows, as models that give the classes of all pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.sensors import by_band, presence
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig, SensorConfig
from geomoe.moe.plan import PlacedTrace, RoutingTrace

__all__ = ["PatchConfig", "PatchMap", "SensorPatchConfig", "SensorPatchMap", "patches_at"]

_TILE = 64
"""Side of a tile's core, pixels: each of its pixels is a patch in memory."""
_PIECE, _PIECE_ON_CPU = 4096, 256
"""Patches that are shown at once: as many as a tile's core has pixels; on a CPU what its caches hold, which
takes half the time."""


@dataclass(frozen=True)
class PatchConfig(MapConfig):
    """Options of a :class:`PatchMap`.

    Attributes:
        patch: side of a patch, pixels; odd.
    """

    patch: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch % 2 == 0:
            raise ValueError(f"patch={self.patch}: expected an odd number")

    @property
    def reach(self) -> int:
        """Pixels that are seen around one, if its patch is all that is seen."""
        return self.patch // 2


@dataclass(frozen=True)
class SensorPatchConfig(PatchConfig, SensorConfig):
    """Options of a :class:`SensorPatchMap`."""


def patches_at(x: Tensor, side: int, places: Tensor | None = None) -> Tensor:
    """Squares of ``x`` around its pixels, or some of them.

    Args:
        x: ``[B, C, H, W]``; beyond its border there are zeros.
        side: of a square, odd.
        places: ``[B, H, W]`` bool, n of them; all if not given.

    Returns:
        ``[n, C, side, side]``, in the order of the pixels.
    """
    padded = F.pad(x, [side // 2] * 4)
    if places is None:
        around = padded.unfold(2, side, 1).unfold(3, side, 1)  # [B, C, H, W, side, side]
        return around.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return _some_patches(padded, side, places)(slice(None))


def _some_patches(padded: Tensor, side: int, places: Tensor) -> Callable[[slice], Tensor]:
    """Gives some of the patches around ``places``; what all of them need is made once."""
    # By the numbers of pixels: gradients are added to the image, and not kept for the patches of all pixels.
    height, width = padded.shape[2:]
    images, rows, columns = places.nonzero(as_tuple=True)
    offsets = torch.arange(side, device=padded.device)
    square = (offsets[:, None] * width + offsets).flatten()
    first = (images * height + rows) * width + columns
    pixels = padded.movedim(1, -1).flatten(0, 2)  # [B H W, C]

    def some(which: slice) -> Tensor:
        corners = first[which]
        patches = pixels.index_select(0, (corners[:, None] + square).flatten())
        found: Tensor = patches.unflatten(0, (len(corners), side, side)).movedim(-1, 1)
        return found

    return some


class PatchMap(nn.Module):
    """Says of every pixel what it shows, from the patch around it and nothing else.

    A system defines :meth:`label`, and :meth:`embed` where it begins with layers of single pixels, which are
    then run once for all patches.

    Args:
        config: of the network.
    """

    takes_wanted = True
    """:meth:`forward` knows ``wanted``."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config)

    @property
    def contract(self) -> ModelContract:
        return _contract(self.config, Input(self.config.bands))

    def embed(self, x: Tensor) -> Tensor:
        """Features ``[B, C, H, W]`` of single pixels; by default the bands themselves."""
        return x

    def label(self, patches: Tensor, trace: RoutingTrace | None) -> Tensor:
        """Logits ``[n, K]`` of patches ``[n, C, side, side]``; plans have a row for each patch."""
        raise NotImplementedError(f"{type(self).__name__} must define label")

    def forward(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Logits.

        Args:
            x: ``[B, bands, H, W]``, of any size.
            trace: if given, the plan of every mixture is appended to it; its rows are all pixels, those alone
                valid whose class is said.
            valid: ``[B, H, W]`` bool, the pixels that there are; nothing is said of others, and patches show
                zeros in their place.
            wanted: ``[B, H, W]`` bool, the pixels whose class is asked for; all if not given.

        Returns:
            ``[B, classes, H, W]``; 0 where nothing is said.
        """
        return self.each(self.label, len(self.config.classes), x, trace, valid, wanted)

    def each(
        self,
        say: Callable[[Tensor, RoutingTrace | None], Tensor],
        channels: int,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """``[B, channels, H, W]`` of what ``say`` gives of patches; all else as of :meth:`forward`."""
        y = self.normalise(x)
        y = self.embed(y if valid is None else y.masked_fill(~valid[:, None], 0))
        y = y if valid is None else y * valid[:, None]
        given = [mask for mask in (valid, wanted) if mask is not None]
        places = torch.stack(given).all(0) if given else None
        return _said(
            lambda patches, plans, _: say(patches, plans), channels, self.config.patch, y, places, trace
        )


class SensorPatchMap(nn.Module):
    """As :class:`PatchMap`, of images that stack the bands of several sensors; a pixel may lack some.

    A system defines :meth:`label`, and :meth:`of_image` where it begins with layers of the whole image, which
    are then run once for all patches. What a pixel lacks it sees as 0 after normalisation, whatever the image
    holds there.

    Args:
        config: of the network.
    """

    takes_wanted = True
    """:meth:`forward` knows ``wanted``."""
    takes_present = True
    """:meth:`forward` knows ``present``."""

    def __init__(self, config: SensorPatchConfig) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config)

    @property
    def contract(self) -> ModelContract:
        return _contract(self.config, Input(self.config.bands, sensors=dict(self.config.sensors)))

    def of_image(self, x: Tensor, there: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        """Features ``[B, C, H, W]`` of an image, by default its bands; its config tells their ``reach``.

        Args:
            x: ``[B, bands, H, W]``.
            there: ``[B, S, H, W]`` bool, the sensors that each pixel has; all if not given.
            trace: if given, plans are appended to it, a row for each pixel.
        """
        return x

    describe: Callable[[Tensor], Tensor] | None = None
    """What :meth:`label` is shown in place of patches ``[n, C, side, side]``, if it is less: ``[n, ...]``."""

    def label(self, patches: Tensor, trace: RoutingTrace | None, present: Tensor) -> Tensor:
        """Logits ``[n, K]`` of patches ``[n, C, side, side]``; ``present`` ``[n, S]`` is of their middles."""
        raise NotImplementedError(f"{type(self).__name__} must define label")

    def forward(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        wanted: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Logits, as of :meth:`PatchMap.forward`.

        Args:
            x: ``[B, bands, H, W]``, of any size.
            trace: if given, the plan of every mixture is appended to it; its rows are all pixels, those alone
                valid whose class is said.
            valid: ``[B, H, W]`` bool, the pixels that there are.
            wanted: ``[B, H, W]`` bool, the pixels whose class is asked for; all if not given.
            present: ``[B, S, H, W]`` bool, the sensors that measured each pixel; all if not given. Of a pixel
                that has none nothing is said.

        Returns:
            ``[B, classes, H, W]``; 0 where nothing is said.
        """
        c = self.config
        y: Tensor = self.normalise(x)
        if present is None and valid is None and wanted is None:
            y = self.of_image(y, None, trace)
            places, sensors = None, x.new_ones(x[:, 0].numel(), len(c.sensors), dtype=torch.bool)
        else:
            there = presence(x, c.sensors, present, valid)
            y = self.of_image(y.masked_fill(~by_band(there, c.sensors), 0), there, trace)
            places = there.any(1) if wanted is None else there.any(1) & wanted
            sensors = there.movedim(1, -1)[places]  # [n, S]

        def say(patches: Tensor, plans: RoutingTrace | None, which: slice) -> Tensor:
            return self.label(patches, plans, sensors[which])

        return _said(say, len(c.classes), c.patch, y, places, trace, self.describe)


def _said(
    say: Callable[[Tensor, RoutingTrace | None, slice], Tensor],
    channels: int,
    side: int,
    y: Tensor,
    places: Tensor | None,
    trace: RoutingTrace | None,
    describe: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``[B, channels, H, W]`` of what ``say`` gives of the patches around ``places`` of ``y``, elsewhere 0.

    Patches are many times the image. They are shown in pieces, and ``say`` is told which, but where all
    are kept anyway, for gradients and plans, and where the network is written down for any size. Plans need
    no more than what ``describe`` makes of the patches, where there is such a thing.
    """
    grid = (len(y), *y.shape[2:])

    def seen(patches: Tensor) -> Tensor:
        return patches if describe is None else describe(patches)

    at_once = torch.is_grad_enabled() or torch.compiler.is_compiling()
    at_once = at_once or (trace is not None and describe is None)
    if places is None and at_once:  # no search for places, for exports
        said = say(seen(patches_at(y, side)), _placed(trace, None, y), slice(None))
        whole: Tensor = said.unflatten(0, grid).movedim(-1, 1)
        return whole
    places = y.new_ones(grid, dtype=torch.bool) if places is None else places
    if not (count := int(places.sum())):
        return y.new_zeros(len(y), channels, *grid[1:])
    if at_once:
        said = say(seen(patches_at(y, side, places)), _placed(trace, places, y), slice(None))
    else:
        some = _some_patches(F.pad(y, [side // 2] * 4), side, places)
        piece = _PIECE_ON_CPU if y.device.type == "cpu" else _PIECE
        pieces = [slice(at, min(at + piece, count)) for at in range(0, count, piece)]
        each = ((seen(some(p)), p) for p in pieces)
        if trace is None:
            said = torch.cat([say(patches, None, p) for patches, p in each])
        else:
            described = torch.cat([patches for patches, _ in each])
            said = say(described, _placed(trace, places, y), slice(None))
    out = said.new_zeros(*grid, said.shape[1])
    return out.masked_scatter(places[..., None], said).movedim(-1, 1)


def _contract(config: PatchConfig, given: Input) -> ModelContract:
    reach = config.reach
    output = Output("classes", len(config.classes), classes=config.classes, colours=config.colours)
    tiling = Tiling(multiple=1, tile=_TILE, margin=reach, reach=reach)
    return ModelContract({"image": given}, {"classes": output}, tiling)


def _placed(trace: RoutingTrace | None, places: Tensor | None, x: Tensor) -> RoutingTrace | None:
    if trace is None:
        return None
    grid = (len(x), *x.shape[2:])
    valid = x.new_ones(grid, dtype=torch.bool) if places is None else places
    return PlacedTrace(trace, valid.flatten(), grid)
