"""Going on to learn in a new place, without labels, from images on which the gates of all known ones agree.

As GRAM does at test time (Lee et al., AAAI 2026): the better half of the images by agreement, the model's own
answers as targets, a focal loss, plain gradient descent. Here every place's answer is compared with every
other's, two masks that are both empty agree, and targets stay as they are for a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from geomoe.data.images import to_unit
from geomoe.data.legend import IGNORED
from geomoe.data.sample import Lazy, Sample
from geomoe.data.split import Split
from geomoe.errors import GeomoeError, expect
from geomoe.evaluation.drift import new_samples, scenes_of
from geomoe.files import overlap
from geomoe.models.weights import Card, LoadedModel, check_target, load, save
from geomoe.tasks.long_tail import focal

__all__ = ["Adapted", "adapt", "adapt_model", "agreement"]

Samples = Sequence[tuple[str, Sample]]
_MASK = "_mask"
"""How the name of a mask ends that lies beside its image."""


class Opinionated(Protocol):
    """A model of several places."""

    def __call__(self, x: Tensor, *, valid: Tensor | None) -> Tensor:
        """Logits ``[B, classes, H, W]``."""

    def guess(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """``[B]`` int64, the place that each image looks most like."""

    def settle(self, domain: int) -> None:
        """All images are taken for that place's from now on."""

    def opinions(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Logits ``[D, B, classes, H, W]``, what is said as if the images were of each place."""


@dataclass(frozen=True)
class Adapted:
    """What was done.

    Attributes:
        domain: number of the known place that most images look like, by whose gates all of them go.
        votes: how many do.
        agreement: of each image, by its name, 0 to 1.
        kept: the images that were learned from.
        name: of that place.
    """

    domain: int
    votes: int
    agreement: dict[str, float]
    kept: tuple[str, ...]
    name: str = ""


def agreement(masks: Tensor) -> Tensor:
    """Mean intersection over union of all pairs of opinions, and over classes; two empty masks agree.

    Args:
        masks: ``[D, K, P]`` bool, of each opinion the pixels of each class; D is 2 or more.

    Returns:
        A scalar, 1 where all opinions are the same, 0 where no two have a pixel in common.
    """
    each = masks.transpose(0, 1).double()  # [K, D, P]
    both, size = each @ each.mT, each.sum(2)
    either = size[:, :, None] + size[:, None] - both
    scores = torch.where(either > 0, both / either.clamp_min(1), 1.0)
    one, other = torch.triu_indices(len(masks), len(masks), 1)
    return scores[:, one, other].mean()


def adapt_model(
    model: nn.Module,
    samples: Samples,
    *,
    share: float = 0.5,
    rounds: int = 10,
    learning_rate: float = 1e-4,
    progress: Callable[[int, int], None] | None = None,
) -> Adapted:
    """Adapt a model to the place of some images, in place; it stays in evaluation mode.

    Args:
        model: as :class:`Opinionated`.
        samples: images by name, ``image`` ``[C, H, W]`` and perhaps ``valid``; labels are not looked at.
        share: of the images that are learned from, those on which the opinions agree best; one at least.
        rounds: passes over them, each with the answers that the model gives at its beginning as targets.
        learning_rate: of plain gradient descent.
        progress: called with images done and images in all.
    """
    known, parameters = cast(Opinionated, model.eval()), [p for p in model.parameters() if p.requires_grad]
    kept_number = max(math.ceil(share * len(samples)), 1)
    total, done = len(samples) + rounds * kept_number, 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    places, scores = [], {}
    with torch.no_grad():
        for name, sample in samples:
            image, valid = _shown(sample)
            said = known.opinions(image, valid).argmax(2)[:, 0]  # [D, H, W]
            seen = said[:, valid[0]] if valid is not None else said.flatten(1)
            classes = torch.arange(int(said.max()) + 1, device=said.device).view(1, -1, 1)
            scores[name] = float(agreement(seen[:, None] == classes))
            places.append(int(known.guess(image, valid)))
            step()
    votes = torch.bincount(torch.tensor(places))
    domain = int(votes.argmax())
    known.settle(domain)
    order = sorted(range(len(samples)), key=lambda place: -list(scores.values())[place])
    kept = sorted(order[:kept_number])
    optimizer = torch.optim.SGD(parameters, learning_rate)
    for _ in range(rounds):
        with torch.no_grad():
            targets = [_answer(known, *_shown(samples[place][1])) for place in kept]
        for place, target in zip(kept, targets, strict=True):
            image, valid = _shown(samples[place][1])
            optimizer.zero_grad()
            _focal(known(image, valid=valid), target).backward()
            optimizer.step()
            step()
    names = [name for name, _ in samples]
    return Adapted(domain, int(votes[domain]), scores, tuple(names[place] for place in kept))


def _shown(sample: Sample) -> tuple[Tensor, Tensor | None]:
    valid = sample.get("valid")
    return to_unit(sample["image"])[None], None if valid is None else valid[None]


def _answer(model: Opinionated, image: Tensor, valid: Tensor | None) -> Tensor:
    said = model(image, valid=valid).argmax(1)
    return said if valid is None else said.masked_fill(~valid, IGNORED)


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    return focal(logits, target).sum() / (2 * (target != IGNORED).sum().clamp_min(1))


def adapt(
    source: Path,
    target: Path,
    data: Path,
    *,
    split: Split | None = None,
    share: float = 0.5,
    rounds: int = 10,
    learning_rate: float = 1e-4,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Adapted:
    """Write weights that have gone on to learn from images of a new place, whose labels nobody knows.

    The card says so; what it said of scores, of drift and of the router is of other weights, and left out.

    Args:
        source: weights of a model of several places, such as ``gram``.
        target: file to write, ``.safetensors``.
        data: folder of images, or data set of which ``split`` is taken.
        split: part of a data set; every image below ``data`` if None.
        share: see :func:`adapt_model`.
        rounds: likewise.
        learning_rate: likewise.
        progress: likewise.
        overwrite: whether ``target`` may exist.

    Raises:
        GeomoeError: bad options, weights of a model that does not know several places, images that cannot be
            read or none, ``target`` cannot be written.
    """
    check_target(target, overwrite=overwrite)
    if overlap([target], [source]):
        raise GeomoeError(f"{target} is what is adapted; write to another file")
    expect(0 < share <= 1, "share", share, "above 0, up to 1")
    expect(rounds >= 1, "rounds", rounds, "a whole number from 1")
    expect(0 < learning_rate < math.inf, "learning_rate", learning_rate, "above 0")
    loaded = load(str(source))
    if not hasattr(loaded.model, "opinions"):
        raise GeomoeError(
            f"{loaded.name} does not know several places, whose answers could be compared; give weights of "
            "such a model, as gram"
        )
    samples = _samples(loaded, data, split)
    if not samples:
        raise GeomoeError(f"{data} holds no images to adapt to")
    found = adapt_model(
        loaded.model, samples, share=share, rounds=rounds, learning_rate=learning_rate, progress=progress
    )
    found = replace(found, name=loaded.card.config["domains"][found.domain])
    said = {
        "from": loaded.hash, "data": data.resolve().name, "images": len(samples), "kept": len(found.kept),
        "rounds": rounds, "learning_rate": learning_rate, "domain": found.name,
    }  # fmt: skip
    save(target, loaded.model, _card(loaded.card, said))
    return found


def _card(card: Card, said: dict[str, object]) -> Card:
    recipe = {**card.recipe, "adapted": said}
    return replace(card, recipe=recipe, scores={}, measured=[], bfloat16={}, reference={}, drift={})


def _samples(model: LoadedModel, data: Path, split: Split | None) -> Samples:
    if split is not None:
        from geomoe.tasks.families import family

        return family(model.card.task).data.named(data, split, model).samples
    paths = [path for path in scenes_of(data) if not path.stem.endswith(_MASK)]

    def read(place: int) -> tuple[str, Sample]:
        name, sample = next(new_samples(model, [paths[place]]))
        return name, dict(sample)

    return Lazy(read, range(len(paths)))
