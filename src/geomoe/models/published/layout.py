"""One description of a published layout, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.models.published.changes import SAME, Change
from geomoe.models.registry import build
from geomoe.models.skeleton import at_most

__all__ = ["Layout", "Rule", "State", "to_ours", "to_published"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """Where one tensor of ours, or weight and bias of one module, comes from.

    Attributes:
        published: names there; several where ours holds them in one, none where ours has no counterpart.
        ours: name here. ``{i}``, ``{j}`` ... stand for numbers, the same on both sides.
        change: of the tensors.
    """

    published: str | tuple[str, ...]
    ours: str
    change: Change = SAME

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        numbered = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(self.ours))
        return re.compile(rf"{numbered}(?P<part_>\.weight|\.bias)?")

    def names(self, ours: str) -> tuple[str, ...] | None:
        """Published names of our tensor; None where this rule is not its."""
        found = self._pattern.fullmatch(ours)
        if found is None:
            return None
        names = (self.published,) if isinstance(self.published, str) else self.published
        return tuple(name.format(**found.groupdict()) + (found["part_"] or "") for name in names)


@dataclass(frozen=True)
class Layout:
    """How files of a published family are laid out.

    Attributes:
        name: of the family and layout, as a reader would say it.
        model: in the registry; the member of its family that fits best is found from the options.
        recognises: whether a state is of this layout; layouts are asked in the order of their list.
        options: of our configuration, as far as shapes (and a mean that is held as a tensor) tell; None for
            what must be said by whoever has the file.
        rules: for a configuration; the first that fits one of our tensors counts.
        ignored: published tensors that carry nothing: regular expressions for whole names.
        constants: published tensors that ``options`` has read, as the configuration gives them.
    """

    name: str
    model: str
    recognises: Callable[[State], bool]
    options: Callable[[State], dict[str, Any]]
    rules: Callable[[Any], Sequence[Rule]]
    ignored: Sequence[str] = ()
    constants: Callable[[Any], dict[str, Tensor]] = field(default=lambda config: {})


def to_ours(
    layout: Layout, published: State, options: Mapping[str, Any] | None = None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A published state as a state of ours.

    Nothing is built but on the meta device, where tensors have shapes and take no memory.

    Args:
        layout: of the state.
        published: names and tensors.
        options: of our configuration that shapes do not tell, or that differ from the usual ones.

    Returns:
        The model on the meta device, and the state that fits it.

    Raises:
        GeomoeError: a tensor that is missing, of another shape, or left over; options of a far larger model.
    """
    config = {**layout.options(published), **(options or {})}
    for key, value in config.items():
        if value is None:
            raise GeomoeError(f"no tensor tells {key} of this {layout.name}; give it by --option {key}=VALUE")
    other = f"it is not {layout.name} with such options"
    with torch.device("meta"), at_most(4 * len(published) + 256, other):
        model = build(layout.model, config)
    rules = layout.rules(model.config)
    state, used = {}, set(layout.constants(model.config))
    for ours, like in model.state_dict().items():
        rule, names = _rule(rules, ours)
        for name in names:
            if name not in published:
                raise GeomoeError(f"it is not {layout.name} as published: it has no {name}")
        tensor = rule.change.to_ours([published[name] for name in names], like.shape)
        if tensor.shape != like.shape:
            raise GeomoeError(
                f"it is not {layout.name} as published: {' and '.join(names)} give {list(tensor.shape)}, "
                f"expected {list(like.shape)}"
            )
        if not tensor.is_floating_point():
            raise GeomoeError(f"it is not {layout.name} as published: {names[0]} is of {tensor.dtype}")
        state[ours] = tensor
        used.update(names)
    left = [name for name in published if name not in used]
    left = [name for name in left if not any(re.fullmatch(ignored, name) for ignored in layout.ignored)]
    if left:
        raise GeomoeError(
            f"it is not {layout.name} as published: {len(left)} tensors are left over, "
            f"among them {left[0][:80]!r}"
        )
    return model, state


def to_published(layout: Layout, model: nn.Module) -> dict[str, Tensor]:
    """The state of a model of ours in a published layout; the inverse of :func:`to_ours`."""
    rules = layout.rules(model.config)
    published = dict(layout.constants(model.config))
    for ours, tensor in model.state_dict().items():
        rule, names = _rule(rules, ours)
        published.update(zip(names, rule.change.to_published(tensor), strict=True))
    return published


def _rule(rules: Sequence[Rule], ours: str) -> tuple[Rule, tuple[str, ...]]:
    for rule in rules:
        names = rule.names(ours)
        if names is not None:
            return rule, names
    raise GeomoeError(f"the published layout has nothing for {ours}, which these options ask for")
