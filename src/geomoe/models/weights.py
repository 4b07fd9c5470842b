"""Weights: safetensors files with a card inside that says where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.files import atomic_write
from geomoe.layers.convolution import DIV2K_MEAN
from geomoe.models.activations import bytes_per_pixel
from geomoe.models.contract import Kind, ModelContract
from geomoe.models.measured import Measured
from geomoe.models.reference import RoutingReference
from geomoe.models.registry import build, config_of, list_models
from geomoe.models.skeleton import check_shapes

__all__ = [
    "Card",
    "LoadedModel",
    "available_weights",
    "check_target",
    "create_model",
    "half_state",
    "load",
    "read_card",
    "save",
]

_KEY = "geomoe"
_MAX_HEADER_BYTES = 8 * 2**20
"""Of the file's list of tensors and its card; those of weights that ship have a hundredth of it."""
_MAX_DEPTH = 32
RADIOMETRIES = ("unit", "values")


@dataclass(frozen=True)
class Card:
    """What a weights file says about itself.

    Attributes:
        model: name in the registry.
        config: every option of the model, scale and bands included.
        radiometry: how source values become the model's. ``unit``: uint8 over 255, other types by their 0.1
            and 99.9 percentiles, band by band; see :mod:`geomoe.raster.read.radiometry`. ``values``: as
            they are, of a model whose configuration has mean and deviation in their units.
        data: what it was trained on, with source and terms.
        degradation: how the training inputs were made.
        recipe: training settings: steps, batch, learning rate, seed and so on.
        protocol: of ``scores``.
        scores: of the model and of the baseline by metric, and what was scored.
        commit: of the repository, when training began.
        date: ISO date on which the weights were written by training.
        licence: SPDX identifier of the weights.
        hash: SHA-256 of names, shapes and bytes of all tensors.
        reference: what the router saw in training, as :class:`RoutingReference` writes it; may be empty.
        bfloat16: what computing in bfloat16 costs, as
            :class:`geomoe.evaluation.precision.Loss` gives it, with what it was measured on;
            empty where it has not been measured, and ``auto`` is float32 then.
        measured: on what else the weights were scored, as :class:`Measured` writes each; see
            :meth:`evaluations`. Older cards have none.
        task: family that the weights were trained for; older cards are of super-resolution.
        drift: what samples look like to the model, as :class:`geomoe.models.drift.DriftReference` writes it;
            may be empty.
        activations: bytes of features that live at once for each pixel of an image, in float32; see
            :func:`geomoe.models.activations.bytes_per_pixel`. 0 on older cards, and of models without tiling.
        bands: names of the bands that the model learned from, in their order; empty where the data had none.
    """

    model: str
    config: dict[str, Any]
    radiometry: str
    data: dict[str, Any]
    degradation: str
    recipe: dict[str, Any]
    protocol: str
    scores: dict[str, Any]
    commit: str
    date: str
    licence: str
    hash: str = field(default="")
    reference: dict[str, Any] = field(default_factory=dict)
    bfloat16: dict[str, Any] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)
    task: str = "super_resolution"
    drift: dict[str, Any] = field(default_factory=dict)
    activations: int = 0
    bands: list[str] = field(default_factory=list)

    @property
    def evaluations(self) -> tuple[Measured, ...]:
        """What the weights were measured on; raises ValueError where that is damaged."""
        return tuple(map(Measured.from_card, self.measured))


@dataclass(frozen=True)
class LoadedModel:
    """A model with trained weights, ready to use.

    Attributes:
        name: of the weights: ``mfg_hmoe_light_x4``, or the file's stem.
        model: the module, in evaluation mode.
        card: what the weights file says about itself.
        path: of that file, where it was loaded from one.
    """

    name: str
    model: nn.Module
    card: Card
    path: Path | None = None

    @property
    def contract(self) -> ModelContract:
        """What the model takes and gives."""
        contract: ModelContract = self.model.contract  # type: ignore[assignment]
        return contract.named(self.card.bands) if self.card.bands else contract

    @property
    def hash(self) -> str:
        return self.card.hash

    @property
    def reference(self) -> RoutingReference | None:
        """What the router saw in training; ``None`` where the card does not say."""
        return RoutingReference.from_card(self.card.reference) if self.card.reference else None


def _hash(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def half_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state in float16; raises GeomoeError where a value is too large for it."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    wrong = [k for k, v in state.items() if v.isinf().any()]
    if wrong:
        raise GeomoeError(f"{wrong[0]} holds values beyond float16; write the weights as they are")
    return state


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise GeomoeError unless weights may be written to ``path``: before anything is computed for them."""
    if path.suffix != ".safetensors":
        raise GeomoeError(f"{path} must end in .safetensors")
    if path.exists() and not overwrite:
        raise GeomoeError(f"{path} exists; use --overwrite to replace it")
    if not path.parent.is_dir():
        raise GeomoeError(f"{path.parent} does not exist; make the folder first")


def save(path: Path, model: nn.Module, card: Card, half: bool = False) -> Card:
    """Write weights and card to ``path``; returns the card with hash and ``activations`` filled in.

    Args:
        path: of the file.
        model: whose weights they are.
        card: what is said of them.
        half: in float16, half as large; loaded they are float32 again, rounded.

    Raises:
        GeomoeError: the file cannot be written, or a weight is too large for float16.
    """
    weights = half_state(model) if half else model.state_dict()
    state = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    activations = card.activations or bytes_per_pixel(model)
    card = replace(card, hash=_hash(state), activations=activations)
    with atomic_write(path) as file:
        file.write(to_bytes(state, metadata={_KEY: json.dumps(asdict(card))}))
    return card


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Card, Any]]:
    """The card of a weights file, and the file; what goes wrong with it meanwhile becomes ours."""
    if not path.is_file():
        raise GeomoeError(f"{path} does not exist; give the name of a model or a .safetensors file")
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise GeomoeError(f"{path} has no geomoe card inside; write weights with 'geomoe export'")
            yield _card(metadata[_KEY]), file
    except (SafetensorError, TypeError, ValueError, OSError, RecursionError, MemoryError) as error:
        raise GeomoeError(f"{path} is not a weights file of geomoe: {_first_line(error)}") from error


def _check_header(path: Path) -> None:
    """Raises ValueError for a header that would take memory without bound, whatever is in it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, more than {_MAX_HEADER_BYTES >> 20} MiB")


def _card(text: str) -> Card:
    card = Card(**json.loads(text))
    for name, kind in get_type_hints(Card).items():
        if not isinstance(getattr(card, name), get_origin(kind) or kind):
            raise ValueError(f"its card has no {name} that can be understood")
    if card.radiometry not in RADIOMETRIES:
        raise ValueError(f"its card asks for radiometry {card.radiometry!r}, which is not known here")
    if _depth(asdict(card)) > _MAX_DEPTH:
        raise ValueError(f"its card is nested more than {_MAX_DEPTH} times")
    if not all(isinstance(name, str) for name in card.bands):
        raise ValueError("its card has names of bands that are none")
    if card.reference:
        RoutingReference.from_card(card.reference)
    card.evaluations  # noqa: B018  (raises)
    return card


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def read_card(path: Path) -> Card:
    """The card inside a weights file; raises GeomoeError for anything else."""
    with _opened(path) as (card, _):
        return card


def available_weights() -> dict[str, Path]:
    """Weights that ship with the package, by name, such as ``mfg_hmoe_light_x4``."""
    with as_file(files("geomoe.models") / "weights") as folder:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _find(name: str, scale: int | None) -> Path:
    if name.endswith(".ckpt"):
        raise GeomoeError(
            f"{name} is a checkpoint to resume training from; give the best.safetensors or last.safetensors "
            "beside it"
        )
    if name.endswith(".safetensors") or "/" in name:
        return Path(name)
    shipped = available_weights()
    full = name if name in shipped or scale is None else f"{name}_x{scale}"
    if full in shipped:
        return shipped[full]
    if name not in list_models() and Path(name).exists():
        raise GeomoeError(
            f"{name} is not a weights file; expected the name of a model or a .safetensors file"
        )
    if name not in list_models():
        raise GeomoeError(f"no model or weights file is called {name!r}; 'geomoe models' lists what there is")
    have = [key.rsplit("_x", 1)[1] for key in shipped if key.rsplit("_x", 1)[0] == name]
    known = f"there are weights for scale {', '.join(have)}" if have else "none ship with it, give a file"
    if scale is None:
        raise GeomoeError(f"{name} names no weights: {known}")
    raise GeomoeError(f"no weights of {name} for scale {scale}; {known}")


def load(name: str, scale: int | None = None, gives: Kind | None = None) -> LoadedModel:
    """A trained model by name (``mfg_hmoe_light``, ``mfg_hmoe_light_x4``) or weights file.

    Args:
        name: a model's or weights' name, or a path that ends in ``.safetensors``.
        scale: wanted; picks the weights of a model, and is checked against a file's.
        gives: kind of output that is wanted; any by default.

    Raises:
        GeomoeError: no such weights, a damaged file, weights of another model, the wrong scale or output.
    """
    path = _find(name, scale)
    with _opened(path) as (card, file):
        made_for = card.config.get("scale")
        if None not in (scale, made_for) and made_for != scale:
            raise GeomoeError(f"{path.name} is for scale {made_for!r}, not {scale}")
        names = file.keys()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        config = _as_trained(card)
        check_shapes(str(path), card.model, config, shapes)
        state = {name: file.get_tensor(name) for name in names}
        model = build(card.model, config)
        model.load_state_dict(state)
    if _hash(state) != card.hash:
        raise GeomoeError(f"{path} is damaged: its tensors do not match the hash on its card")
    loaded = LoadedModel(path.stem, model.eval(), card, path)
    if gives is not None:
        loaded.contract.expect(gives, loaded.name)
    if scale is not None and made_for is None:
        loaded.contract.expect("image", loaded.name, f", to make one {scale} times as large")
    return loaded


def _as_trained(card: Card) -> dict[str, Any]:
    """The configuration on a card; of one older than the option ``mean``, with what was subtracted then."""
    default = getattr(config_of(card.model, {}), "mean", None)
    if "mean" in card.config or default in (None, (0.5,)):
        return card.config
    if card.config.get("bands", 3) != 3:
        return {**card.config, "mean": [0.5]}
    return card.config if default == () else {**card.config, "mean": list(DIV2K_MEAN)}


def create_model(
    name: str, *, scale: int | None = None, bands: int | None = None, pretrained: bool = False, **config: Any
) -> nn.Module:
    """Make a model by name.

    Args:
        name: one of :func:`geomoe.list_models`.
        scale: 2, 3, 4 or 8, of a model that makes images larger; 4 by default.
        bands: channels in, and out if it gives an image; as many as the model takes by default, mostly 3.
        pretrained: with the weights that ship for this name and scale, in evaluation mode.
        config: further options of the model's configuration; an unknown one is an error.

    Raises:
        GeomoeError: unknown name or option, a bad value, no weights, or weights made with other options.

    Example:
        >>> import geomoe
        >>> model = geomoe.create_model("mfg_hmoe_light", scale=2, bands=4)
    """
    options = config if bands is None else {"bands": bands, **config}
    if scale is not None or hasattr(config_of(name, {}), "scale"):
        options["scale"] = 4 if scale is None else scale
    if not pretrained:
        return build(name, options)
    return load_as(name, name, options).model


def load_as(weights: str, name: str, options: Mapping[str, Any]) -> LoadedModel:
    """Weights that must be those of model ``name`` with the configuration that ``options`` give.

    Options that a configuration lists as ``GROWS`` may be given to weights that were trained without; what
    it lists as ``ADAPTS`` may differ: the tensors that are of another shape for it are new, and so is the
    head of other classes, unless the model has ``inherit(trained)``, which takes what it wants itself. Where
    a configuration says ``HOLDS``, weights of another model may be those of this part.

    Args:
        weights: as the name of :func:`load`.
        name: of a model in the registry.
        options: of its configuration; those left out have the model's defaults.

    Raises:
        GeomoeError: as :func:`load` and :func:`geomoe.models.registry.build`, and for weights made otherwise.
    """
    wanted, loaded = config_of(name, options), load(weights, options.get("scale"))
    if loaded.card.model != name:
        if (holder := _holder(weights, loaded, name, options)) is not None:
            return replace(loaded, model=holder.eval())
        raise GeomoeError(f"{weights} holds weights of {loaded.card.model}, not of {name}")
    trained = loaded.model.config
    if trained == wanted:
        return loaded
    other = {key: value for key, value in asdict(wanted).items() if getattr(trained, key) != value}
    free = getattr(wanted, "ADAPTS", ())
    if all(key in free or (key in getattr(wanted, "GROWS", ()) and value) for key, value in other.items()):
        grown = build(name, options)
        if inherit := getattr(grown, "inherit", None):
            inherit(loaded.model)
            return replace(loaded, model=grown.eval())
        shapes = {key: value.shape for key, value in grown.state_dict().items()}
        new = ("head.",) if "classes" in other else ()  # of as many other classes it has the same shape
        fitting = {
            key: value
            for key, value in loaded.model.state_dict().items()
            if shapes.get(key) == value.shape and not key.startswith(new)
        }
        grown.load_state_dict(fitting, strict=False)
        return replace(loaded, model=grown.eval())
    given = ", ".join(f"{key}={value!r}" for key, value in other.items())
    raise GeomoeError(f"the weights of {weights} were not trained with {given}; leave that out")


def _holder(weights: str, loaded: LoadedModel, name: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Model ``name`` with these weights in the part that it holds; None where they are of no such part."""
    part: str | None = getattr(config_of(name, options), "HOLDS", None)
    if part is None:
        return None
    holder = build(name, options)
    held = holder.get_submodule(part)
    if type(held) is not type(loaded.model):
        return None
    own = load_as(weights, loaded.card.model, asdict(held.config)).model  # type: ignore[call-overload]
    held.load_state_dict(own.state_dict(), strict=False)  # it may have more than they have
    return holder
