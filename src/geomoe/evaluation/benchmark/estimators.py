"""Baselines that are no networks: scikit-learn's classifiers and a threshold, on features of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.threshold import Threshold
from geomoe.evaluation.samples import batches
from geomoe.layers.sensors import sensor_slices
from geomoe.tasks.class_task import ClassTask
from geomoe.tasks.stream import Named

__all__ = ["FEATURES", "Fitted", "check_estimator", "fit_estimator"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PATCH = 5
"""Side of a patch, pixels."""
_DARK = 0.05
"""Added to a date's values over their mean."""
_TINY = torch.finfo(torch.float32).tiny


def colours(batch: Batch) -> Tensor:
    """Mean, deviation and five quantiles of each band of whole images: ``[B, 7 C]``."""
    values = batch["image"].flatten(2)  # [B, C, N]
    spread = torch.quantile(values, torch.tensor(_QUANTILES), dim=2)  # [5, B, C]
    return torch.cat([values.mean(2), values.std(2), *spread], 1)


def values(batch: Batch) -> Tensor:
    """All values of whole images, of small ones: ``[B, C H W]``."""
    return batch["image"].flatten(1)


def pixels(batch: Batch) -> Tensor:
    """The bands of each pixel: ``[B, C, H, W]``."""
    return batch["image"]


def patches(batch: Batch) -> Tensor:
    """The bands of each pixel, and their mean over the pixels around that there are: ``[B, 2 C, H, W]``."""
    image = batch["image"]
    return torch.cat([image, _around(image, _valid(batch))], 1)


def _valid(batch: Batch) -> Tensor:
    """``[B, 1, H, W]``, 1 where there is a pixel, else 0."""
    image = batch["image"]
    return batch.get("valid", torch.ones_like(image[:, 0], dtype=torch.bool))[:, None].to(image.dtype)


def _around(image: Tensor, valid: Tensor) -> Tensor:
    """Mean over the patch around each pixel, of the pixels that there are."""
    share, total = (F.avg_pool2d(x, _PATCH, 1, _PATCH // 2) for x in (valid, image * valid))
    return total / share.clamp_min(1 / _PATCH**2)


def log_ratio(batch: Batch, sensors: Mapping[str, int]) -> Tensor:
    """How far apart two dates are, as detectors of change in radar images measure it: ``[B, 1, H, W]``.

    The logarithm of their ratio without its sign; of each date the mean over its bands and a patch, over its
    mean in the image, to which a little is added so that what is dark does not count for too much.

    Raises:
        GeomoeError: images of another number of dates than two.
    """
    if len(sensors) != 2:
        raise GeomoeError(f"log_ratio is of images of two dates; these have the sensors {dict(sensors)}")
    image, valid = batch["image"].clamp_min(0), _valid(batch)
    dates = torch.stack([image[:, bands].mean(1) for bands in sensor_slices(sensors).values()], 1)
    level = (dates * valid).sum((2, 3), keepdim=True) / valid.sum((2, 3), keepdim=True).clamp_min(1)
    before, after = (_around(dates, valid) / level.clamp_min(_TINY) + _DARK).log().unbind(1)
    return (after - before).abs()[:, None]


def ndvi_fall(batch: Batch, sensors: Mapping[str, int]) -> Tensor:
    """How far the vegetation index fell between two dates, as detectors of burns ask: ``[B, 1, H, W]``.

    The bands of each date begin with red, green, blue and near infrared.

    Raises:
        GeomoeError: images of another number of dates than two, or of too few bands.
    """
    if len(sensors) != 2 or min(sensors.values()) < 4:
        raise GeomoeError(
            "ndvi_fall is of two dates with red, green, blue and near infrared; these have the sensors "
            f"{dict(sensors)}"
        )

    def index(image: Tensor) -> Tensor:
        red, nir = image[:, 0].clamp_min(0), image[:, 3].clamp_min(0)
        return (nir - red) / (nir + red).clamp_min(_TINY)

    before, after = (index(batch["image"][:, bands]) for bands in sensor_slices(sensors).values())
    return (before - after)[:, None]


FEATURES: dict[str, Callable[[Batch], Tensor]] = {
    "colours": colours,
    "values": values,
    "pixels": pixels,
    "patches": patches,
}
"""What an estimator may be shown, by name; a row for each sample, or for each of its pixels."""
OF_SENSORS: dict[str, Callable[[Batch, Mapping[str, int]], Tensor]] = {
    "log_ratio": log_ratio,
    "ndvi_fall": ndvi_fall,
}
"""The same, where it matters whose bands an image stacks."""

_ESTIMATORS = {
    "random_forest": "RandomForestClassifier",
    "gradient_boosting": "HistGradientBoostingClassifier",
}
_THRESHOLD = "threshold"


def _make(name: str, options: Mapping[str, Any]) -> Any:
    if name not in (*_ESTIMATORS, _THRESHOLD):
        raise GeomoeError(
            f"no estimator is called {name!r}; there are: {', '.join((*_ESTIMATORS, _THRESHOLD))}"
        )
    try:
        from sklearn import ensemble  # optional
    except ModuleNotFoundError as error:
        raise GeomoeError(
            f"{name} is of scikit-learn, which is not there; install it by: pip install 'geomoe[classical]'"
        ) from error
    made = Threshold() if name == _THRESHOLD else getattr(ensemble, _ESTIMATORS[name])()
    known = sorted(set(made.get_params()) - {"random_state"})
    for option in options:
        if option not in known:
            raise GeomoeError(f"{name} has no option {option!r}; it has: {', '.join(known) or 'none'}")
    return made.set_params(**options)


def check_estimator(where: str, name: str, features: str, options: Mapping[str, Any]) -> None:
    """Refuse, with a GeomoeError, an estimator, features or options that there are not."""
    if features not in (known := {**FEATURES, **OF_SENSORS}):
        raise GeomoeError(f"{where}.features={features!r}: expected one of {', '.join(known)}")
    try:
        _make(name, options)
    except GeomoeError as error:
        raise GeomoeError(f"{where}: {error}") from error


class Fitted:
    """An estimator that has learned, as a task's answers."""

    def __init__(self, estimator: Any, features: str, task: ClassTask, sensors: Mapping[str, int]) -> None:
        self.estimator, self.features, self.task, self.sensors = estimator, features, task, sensors

    def __call__(self, batch: Batch) -> Tensor:
        """Probabilities ``[B, classes]``, or ``[B, classes, H, W]``; 0 of classes that were not learned."""
        rows, there, shape = _rows(_shown(self.features, batch, self.sensors), self.task.truth(batch))
        answer = np.zeros((len(there), len(self.task.classes)), np.float32)
        answer[np.ix_(there, self.estimator.classes_)] = self.estimator.predict_proba(rows[there])
        return torch.from_numpy(answer).view(*shape, -1).movedim(-1, 1)


def fit_estimator(
    name: str, features: str, options: Mapping[str, Any], seed: int, task: ClassTask, named: Named
) -> Fitted:
    """Let an estimator learn from samples.

    Args:
        name: ``random_forest``, ``gradient_boosting`` or ``threshold``.
        features: one of :data:`FEATURES` or :data:`OF_SENSORS`.
        options: of scikit-learn's estimator; a threshold has none.
        seed: of it.
        task: whose truth is learned.
        named: what is learned from.

    Raises:
        GeomoeError: an estimator or options that there are not.
    """
    estimator = _make(name, options).set_params(random_state=seed)
    learned: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
    for _, batch in batches(named.samples):
        truth = task.truth(batch)
        rows, there, _ = _rows(_shown(features, batch, named.sensors), truth)
        learned.append((rows[there], truth.reshape(-1).numpy()[there]))
    rows, truths = (np.concatenate(parts) for parts in zip(*learned, strict=True))
    return Fitted(estimator.fit(rows, truths), features, task, named.sensors)


def _shown(features: str, batch: Batch, sensors: Mapping[str, int]) -> Tensor:
    return OF_SENSORS[features](batch, sensors) if features in OF_SENSORS else FEATURES[features](batch)


def _rows(features: Tensor, truth: Tensor) -> tuple[NDArray[np.float32], NDArray[np.bool_], Sequence[int]]:
    """``[N, F]``, which of them have a truth, and the shape ``[B]`` or ``[B, H, W]`` that they had."""
    rows = features.movedim(1, -1)
    there: NDArray[np.bool_] = (truth >= 0).reshape(-1).numpy()
    return rows.reshape(-1, rows.shape[-1]).float().numpy(), there, rows.shape[:-1]
