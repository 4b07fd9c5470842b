"""Pictures of routing, as tensors ``[3, H, W]`` of uint8: for a log, with no plotting library."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan

__all__ = ["expert_colours", "expert_map_picture", "usage_picture"]

# Okabe and Ito's colours: people with any of the common colour deficiencies tell them apart. One a group of
# experts; inside a group, experts go from the colour to a light tint of it.
_GROUPS = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (90, 90, 90),
)


def expert_colours(group_sizes: Sequence[int]) -> Tensor:
    """``[E, 3]`` uint8, a colour for every expert: a hue for each group, light to dark inside it."""
    colours = []
    for group, size in enumerate(group_sizes):
        hue = torch.tensor(_GROUPS[group % len(_GROUPS)], dtype=torch.float32)
        tint = 0.75 * torch.linspace(0, 1, max(size, 2))[:size, None]
        colours.append(hue + tint * (255 - hue))
    return torch.cat(colours).round().to(torch.uint8)


def expert_map_picture(plan: RoutingPlan, image: int = 0) -> Tensor:
    """``[3, H, W]`` uint8: the expert that counts most for every pixel of one image, in its colour.

    Black where none does.

    Raises:
        ValueError: a plan whose rows are not the pixels of images.
    """
    if len(plan.grid) != 3:
        raise ValueError(f"an expert map needs a plan for pixels (B, H, W), not for {plan.grid}")
    colours = expert_colours(plan.group_sizes).to(plan.experts.device)
    main = plan.main
    picture = colours[main.clamp_min(0)] * (main >= 0)[:, None]
    return picture.view(*plan.grid, 3)[image].permute(2, 0, 1)


def usage_picture(
    loads: Sequence[Tensor], group_sizes: Sequence[int], height: int = 120, width: int = 480
) -> Tensor:
    """``[3, height, width]`` uint8: every expert's share of choices over time, stacked.

    Even use is bands of one height; a dead expert's band vanishes.

    Args:
        loads: ``[E]`` shares, in the order of time.
        group_sizes: experts in each group.
        height: of the picture in pixels.
        width: of the picture in pixels.

    Raises:
        ValueError: no loads at all.
    """
    if not loads:
        raise ValueError("usage_picture: there are no loads to draw")
    ends = torch.stack([load.detach().cpu().float() for load in loads]).cumsum(1)  # [T, E]
    moment = (torch.arange(width) * len(loads)) // width
    level = (torch.arange(height) + 0.5) / height
    expert = torch.searchsorted(
        ends[moment].contiguous(), level.expand(width, -1).contiguous()
    )  # [width, height]
    colours = expert_colours(group_sizes)
    return colours[expert.clamp(max=len(colours) - 1)].permute(2, 1, 0)
