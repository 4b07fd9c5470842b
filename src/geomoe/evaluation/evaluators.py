"""How the weights of a family of tasks are scored, calibrated and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomoe.data.sample import Sample
from geomoe.data.split import Split
from geomoe.errors import GeomoeError
from geomoe.evaluation.evaluation import Evaluation
from geomoe.models import LoadedModel
from geomoe.models.precision import Precision

if TYPE_CHECKING:
    from geomoe.evaluation.benchmark.config import Benchmark
    from geomoe.evaluation.benchmark.images import Images

__all__ = ["EVALUATORS", "Drawn", "Evaluator", "Progress", "Samples", "evaluator", "refuse"]

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all."""
Samples = Sequence[tuple[str, Sample]]

EVALUATORS: dict[str, str] = {
    "super_resolution": "geomoe.evaluation.super_resolution.evaluator:ImageEvaluator"
}
"""Classes of families that need more than :class:`Evaluator` offers, by the families' names; each is imported
when it is used."""


@dataclass(frozen=True)
class Drawn:
    """What a picture shows, in numbers.

    Attributes:
        found: for JSON.
        title, heads, rows: the same as a table for people; no rows where there are no numbers.
        said: how much it shows, in words.
    """

    found: dict[str, Any]
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    said: str


class Evaluator:
    """Of a family whose samples are what they are, by its task and its data alone.

    Importing this wants neither Lightning nor torchmetrics, which tasks want.
    """

    def evaluate(
        self,
        model: LoadedModel,
        root: Path,
        *,
        split: Split = "test",
        device: str = "auto",
        precision: Precision = "float32",
        skip_corrupt: bool = False,
        progress: Progress | None = None,
        say: Callable[[str], None] = lambda line: None,
        **options: Any,
    ) -> Evaluation:
        """As :func:`geomoe.evaluate`; ``options`` are ``without``, names of sensors, and ``other_sensor``."""
        from geomoe.evaluation.samples import evaluate_samples

        refuse(model, options.keys() - {"without", "other_sensor"})
        return evaluate_samples(
            model, root, split=split, device=device, precision=precision, skip_corrupt=skip_corrupt,
            progress=progress, say=say, **options,
        )  # fmt: skip

    def picture(
        self,
        models: Sequence[LoadedModel],
        source: Path,
        target: Path,
        *,
        layer: int = -1,
        device: str = "auto",
        progress: Progress | None = None,
        **options: Any,
    ) -> Drawn:
        """Draw samples of a folder beside what models say of them, and what their experts did.

        Args:
            models: of the family, of different names.
            source: what ``evaluate`` scores.
            target: the picture, checked by :func:`geomoe.evaluation.figures.check_target`.
            layer: of those that route in a model, from 1; -1 is the last.
            device: of the models.
            progress: called with samples done and samples in all.
            options: ``split`` and ``samples``, how many; see
                :func:`geomoe.evaluation.sample_picture.draw_samples`.

        Raises:
            GeomoeError: samples, models, a layer or options that cannot be used.
        """
        from geomoe.evaluation.sample_picture import draw_samples

        refuse(models[0], options.keys() - {"split", "samples"})
        return draw_samples(models, source, target, layer=layer, device=device, progress=progress, **options)

    def as_trained(self, model: LoadedModel) -> dict[str, Any]:
        """Options by which weights are scored as they were trained."""
        return {}

    def calibration(self, model: LoadedModel, root: Path, most: int) -> tuple[Samples, Samples, str]:
        """About ``most`` samples that were trained on, some that were kept, and what these are in words.

        Raises:
            GeomoeError: none of either.
        """
        from geomoe.tasks.families import family

        data = family(model.card.task).data
        fit, kept = (data.named(root, part, model).samples for part in ("fit", "validation"))
        if not fit or not kept:
            raise GeomoeError(
                f"{root} holds {len(fit)} samples to train on and {len(kept)} kept to validate on; "
                "calibration needs some of both"
            )
        return fit[:: -(-len(fit) // most)], kept, f"{len(kept)} samples kept to validate on"

    def benchmark_data(self, benchmark: Benchmark, root: Path) -> Images:
        """What the arms of a benchmark are trained and scored on, below ``root``."""
        from geomoe.evaluation.benchmark.samples import Samples as OfBenchmark

        return OfBenchmark(benchmark, root / benchmark.train)


def refuse(model: LoadedModel, options: Iterable[str]) -> None:
    """Raise GeomoeError for the first of options that a family does not have."""
    for name in options:
        raise GeomoeError(f"{model.name} is of {model.card.task}, which has no {name}; leave it out")


def evaluator(task: str) -> Evaluator:
    """Of the family called ``task``."""
    module, _, name = EVALUATORS.get(task, f"{__name__}:Evaluator").partition(":")
    made: Evaluator = getattr(import_module(module), name)()
    return made
