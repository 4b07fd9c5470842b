"""The benchmark file of a model's controls, made of its own training configuration or card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml

from geomoe.configs import find_config, shipped
from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.read import taken_by_benchmark
from geomoe.files import read_small, write_text
from geomoe.models.registry import build, config_of, list_models
from geomoe.models.twin import TWINS, Mixture, experts_per_row
from geomoe.models.weights import Card, load
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.routing.choice import AllExperts, TopK
from geomoe.moe.routing.router import AnyRouter, Router
from geomoe.tasks.bounded_yaml import load_yaml
from geomoe.tasks.families import FAMILIES, USUAL, Family
from geomoe.tasks.options import options_of

__all__ = ["twins_file", "write_twins"]

_SEEDS = [0, 1, 2]
_MOST = 4
"""Members of an ensemble."""


@dataclass(frozen=True)
class _Training:
    """How a model was, or is to be, trained: sections of ``geomoe fit``, without what data decide."""

    of: Family
    model: str
    options: dict[str, Any]
    recipe: dict[str, dict[str, Any]]


def write_twins(source: str, path: Path, sweeps: Mapping[str, Sequence[Any]] | None = None) -> list[str]:
    """Write the file of :func:`twins_file`; raises GeomoeError where ``path`` exists, or as that does."""
    if path.suffix not in (".yaml", ".yml"):
        raise GeomoeError(f"{path} must end in .yaml")
    if path.exists():
        raise GeomoeError(f"{path} exists; remove it, or give another --out")
    text, notes = twins_file(source, sweeps or {})
    write_text(path, text)
    return notes


def twins_file(source: str, sweeps: Mapping[str, Sequence[Any]]) -> tuple[str, list[str]]:
    """A benchmark of a model and its controls, all trained by its own recipe.

    Args:
        source: a training configuration or weights, by name or path.
        sweeps: values of the model's options, by dotted name, such as ``router_options.top_k``; each
            combination that there can be is an arm.

    Returns:
        The file as YAML, and what was left out of it, each with the reason.

    Raises:
        GeomoeError: neither, a model without experts, or an option that it does not have.
    """
    training = _from_configuration(source) if _is_configuration(source) else _from_card(source)
    mixtures = _mixtures(training, training.options)
    if not mixtures:
        raise GeomoeError(f"{training.model} has no experts, and so no twins; give a model that routes")
    notes: list[str] = []
    arms = dict(_arms(training, mixtures, notes)) | dict(_swept(training, sweeps, notes))
    recipe, task = deepcopy(training.recipe), training.of.task.family
    head: dict[str, Any] = {"title": f"What routing is worth to {training.model}", "flagship": "moe"}
    if training.of is USUAL:
        data = recipe.get("data", {})
        head |= {name: data.pop(name) for name in ("scale", "degradation", "sources") if name in data}
        head |= (
            {"protocol": training.recipe["model"]["protocol"]}
            if "protocol" in training.recipe["model"]
            else {}
        )
        head.setdefault("scale", 4)
    else:
        head["task"] = task
    taken = taken_by_benchmark(training.of.task)
    recipe = {
        section: {k: v for k, v in options.items() if k not in taken.get(section, ())}
        for section, options in recipe.items()
    }
    found = {**head, "seeds": _SEEDS, "recipe": {k: v for k, v in recipe.items() if v}, "arms": arms}
    comment = [
        f"The controls of {training.model}, each by the recipe of {Path(source).name}.",
        "geomoe benchmark THIS_FILE --data FOLDER_OF_THE_DATA",
        *notes,
    ]
    text = "".join(f"# {line}\n" for line in comment)
    return text + yaml.safe_dump(found, sort_keys=False, width=110, default_flow_style=None), notes


def _is_configuration(source: str) -> bool:
    return source.endswith((".yaml", ".yml")) or source in shipped()


def _from_configuration(source: str) -> _Training:
    path = Path(find_config(source))
    try:
        found = load_yaml(read_small(path).decode())
        sections = {
            name: dict(found.get(name) or {}) for name in ("trainer", "model", "data", "ema", "weights")
        }
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise GeomoeError(f"{path} is no training configuration: {' '.join(str(error).split())}") from error
    of = USUAL
    if "class_path" in sections["model"]:
        name = sections["model"]["class_path"]
        known = {f"{one.task.__module__}.{one.task.__qualname__}": one for one in FAMILIES.values()}
        if name not in known:
            raise GeomoeError(f"{path}: {name} is no task that is known; there are: {', '.join(known)}")
        of = known[name]
        sections |= {key: dict(sections[key].get("init_args") or {}) for key in ("model", "data")}
    model = sections["model"].get("model") or options_of(of.task)["model"].default
    options = sections["model"].get("options") or {}
    if not isinstance(model, str) or not isinstance(options, dict):
        raise GeomoeError(f"{path} names no model; expected model.model, as of geomoe models")
    return _Training(of, model, options, {key: value for key, value in sections.items() if value})


def _from_card(source: str) -> _Training:
    if source in list_models():
        raise GeomoeError(
            f"{source} is a model without a recipe; give a training configuration or weights: "
            f"{', '.join(shipped())}, or a .safetensors file"
        )
    card = load(source).card
    of = FAMILIES[card.task]
    usual = config_of(card.model, {})
    facts = {"scale", "bands", "classes", "colours"} | ({"mean", "std"} if of is not USUAL else set())
    options = {
        option.name: card.config[option.name]
        for option in fields(usual)
        if option.name in card.config
        and option.name not in facts
        and _plain(card.config[option.name]) != _plain(getattr(usual, option.name))
    }
    return _Training(of, card.model, _plain(options), _recipe(card, of))


def _recipe(card: Card, of: Family) -> dict[str, dict[str, Any]]:
    """The sections of ``geomoe fit`` that a card's recipe tells of."""
    told = card.recipe
    if "start" in told:
        raise GeomoeError(
            "these weights went on from others, which twins do not have; give the training configuration"
        )
    model = {name: told[name] for name in options_of(of.task) if name in told and name != "seed"}
    data = {name: told[name] for name in options_of(of.data) if name in told and name != "seed"}
    model |= {"optimizer": str(told["optimiser"]).lower(), "compile": told.get("compiled", False)}
    if model.get("schedule") == "cosine":
        model.pop("milestones", None)
    trainer = {"max_steps": told["of"], "precision": told["precision"]}
    if told.get("gradient_clip"):
        trainer["gradient_clip_val"] = told["gradient_clip"]
    if of is USUAL:
        model["protocol"] = card.protocol
        data |= {"scale": card.config["scale"], "degradation": card.degradation}
    ema = {"ema": {"decay": told["ema_decay"]}} if told.get("ema_decay") else {}
    return {"trainer": trainer, "model": _plain(model), "data": _plain(data), **ema}


def _plain(value: Any) -> Any:
    """As YAML has it."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _mixtures(training: _Training, options: Mapping[str, Any]) -> list[Mixture]:
    """Layers of the model that have a router and a bank; it is made without memory."""
    facts = {"scale": training.recipe.get("data", {}).get("scale", 4)} if training.of is USUAL else {}
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = build(training.model, {**facts, **options})
    return [
        layer  # type: ignore[misc]
        for layer in model.modules()
        if isinstance(getattr(layer, "router", None), AnyRouter)
        and isinstance(getattr(layer, "bank", None), ExpertBank)
    ]


def _arms(
    training: _Training, mixtures: Sequence[Mixture], notes: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "moe", _flagship(training)
    for twin, label in TWINS.items():
        if twin == "gated" and not any(_modulates(mixture) for mixture in mixtures):
            notes.append(
                "No gated twin: a row's gates sum to 1 whatever the router learns, and it would be the dense "
                "twin."
            )
        elif (reason := _cannot(training, {"twin": twin})) is not None:
            notes.append(f"No {label}: {reason}.")
        else:
            yield twin, {"label": label, **_arm(training, {"twin": twin})}
            if twin == "active":
                first = mixtures[0]
                members = max(2, min(_MOST, first.bank.num_experts // experts_per_row(first.router)))
                label = f"ensemble of {members} dense twins, the same steps in all"
                yield "ensemble", {"label": label, **_arm(training, {"twin": twin}), "members": members}


def _flagship(training: _Training) -> dict[str, Any]:
    return {"label": f"{training.model}, its experts", **_arm(training, {})}


def _modulates(mixture: Mixture) -> bool:
    """Whether the sum of a row's gates depends on what a router has learned."""
    choice = mixture.router.choice if isinstance(mixture.router, Router) else None
    if not isinstance(choice, TopK):
        return not isinstance(choice, AllExperts)  # whose softmax sums to 1
    return choice.mode == "soft" and choice.k < mixture.bank.num_experts


def _swept(
    training: _Training, sweeps: Mapping[str, Sequence[Any]], notes: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for values in product(*sweeps.values()) if sweeps else ():
        at = dict(zip(sweeps, values, strict=True))
        short = {name.rpartition(".")[2]: value for name, value in at.items()}
        changes: dict[str, Any] = {}
        for name, value in at.items():
            outer, _, inner = name.partition(".")
            above = changes.get(outer) or training.options.get(outer) or {}
            changes[outer] = {**above, inner: value} if inner else value
        words = ", ".join(f"{name}={value}" for name, value in short.items())
        if (reason := _cannot(training, changes)) is not None:
            if "has no" in reason:
                raise GeomoeError(f"--sweep: {reason}")
            notes.append(f"Not in the sweep: {words}: {reason}.")
            continue
        if _same(training, changes):  # the model itself is not trained twice
            yield "moe", {**_flagship(training), "at": short}
            continue
        yield (
            "-".join(f"{name}{value}" for name, value in short.items()),
            {"label": words, **_arm(training, changes), "at": short},
        )


def _arm(training: _Training, changes: Mapping[str, Any]) -> dict[str, Any]:
    facts = ("scale", "bands", "classes")
    options = {k: v for k, v in {**training.options, **changes}.items() if k not in facts}
    return {"model": training.model, "options": deepcopy(options)}


def _same(training: _Training, changes: Mapping[str, Any]) -> bool:
    """Whether changes leave the model as it is."""
    as_it_is, changed = (
        config_of(training.model, options) for options in (training.options, {**training.options, **changes})
    )
    return bool(as_it_is == changed)


def _cannot(training: _Training, changes: Mapping[str, Any]) -> str | None:
    """Why there is no such model; None if there is."""
    try:
        _mixtures(training, {**training.options, **changes})
    except GeomoeError as error:
        return str(error)
    return None
