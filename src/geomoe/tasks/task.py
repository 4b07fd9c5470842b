"""What the training of every task has in common."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError, expect
from geomoe.metrics.measures import measure, show
from geomoe.models.registry import build
from geomoe.models.stages import Shown
from geomoe.models.weights import Card, LoadedModel, load_as
from geomoe.moe.objectives.step import balance_loss, rebalance
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.router import AnyRouter
from geomoe.tasks.balance import BALANCE
from geomoe.tasks.compiled import compile_blocks
from geomoe.tasks.muon import Muon, matrices
from geomoe.tasks.stages import Stages, read_stages

__all__ = ["Task", "check_losses", "learning_rate_factor"]


def learning_rate_factor(
    share: float, schedule: Literal["step", "cosine"], milestones: tuple[float, ...], warmup: float
) -> float:
    """Factor on the learning rate after ``share`` (0 to 1) of the run."""
    if share < warmup:
        return share / warmup
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))
    return 0.5 ** sum(share >= milestone for milestone in milestones)


def check_losses(weights: Mapping[str, float], known: Iterable[str]) -> dict[str, float]:
    """``weights`` by name as a plain dictionary; a weight of 0 means that the term is logged alone.

    Raises:
        GeomoeError: names that are not ``known``, weights that are negative or not finite, none above 0.
    """
    names = list(known)
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise GeomoeError(f"no loss is called {unknown[0]!r}; there are: {', '.join(names)}")
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise GeomoeError(f"losses: {name} has a weight of {weight}; give one of 0 or more")
    if not any(weights.values()):
        raise GeomoeError(
            f"losses: none has a weight above 0, so nothing would be learned; give one, as {names[0]}: 1.0"
        )
    return dict(weights)


def objectives(model: torch.nn.Module) -> Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
    """A model's own losses by name, of all its ``answers`` (the prediction first) and the truth."""
    return getattr(model, "objectives", {})


class Task(pl.LightningModule):
    """Training of a registered model: optimiser, schedule, balance, validation beside a baseline.

    A family says what its losses and metrics are, and what they compare: :attr:`LOSSES`, :meth:`truth`,
    :meth:`metrics`, :attr:`monitor` and :meth:`baseline`; and of :attr:`from_data` what a model must be made
    for. ``trace`` holds the plans of the last step, for :class:`geomoe.tasks.routing.RoutingMonitor`.

    The defaults are the recipe of MFG-HMoE: Adam 2e-4, betas (0.9, 0.99), halved at 30, 50, 65, 70 and 75 %
    of the run.

    Args:
        model: name in the registry.
        facts: options of the model that the data decide, such as its bands.
        options: further configuration of the model.
        start: weights to start from, by name or path, instead of random ones: a model of this name and
            configuration, or weights of the part that this model holds, such as ``base_t``.
        losses: weights of a sum, by the names of the family's losses and of the model's own ``objectives``,
            such as ``{l1: 1.0, ssim: 0.1}``; the family's first one alone by default.
        learning_rate: of the optimiser.
        optimizer: ``adam``, or ``muon`` for the weights in the trunk's blocks, beside Adam for the others.
        betas: of Adam.
        schedule: ``step`` or ``cosine``; each stage goes through the whole of it.
        milestones: shares of the run at which ``step`` halves the learning rate.
        warmup: share of the run over which the learning rate rises from 0.
        balance: what keeps experts in use: a term of the loss, one of :data:`BALANCE` (``vmoe``, the mean of
            ``importance`` and ``load``, as in V-MoE), or a bias on the choice alone (``bias``, loss-free).
        balance_weight: weight of the term, or rate of the bias.
        balance_until: share of the run after which balance rests, so that experts can settle.
        seed: of the initial weights and of stochastic depth.
        compile: the trunk's blocks, by torch.compile, while training; the weights are those of a model that
            is not compiled.
        stages: each as the options of a :class:`geomoe.models.stages.Stage`, in the place of the model's own.
    """

    family: ClassVar[str]
    """By which a card names the task."""
    LOSSES: ClassVar[Mapping[str, Callable[[Tensor, Tensor], Tensor]]]
    """By name: of prediction and truth of a batch, a scalar that is the mean over samples."""
    monitor: ClassVar[str]
    """The metric by which samples are judged."""
    base: ClassVar[str]
    """What :meth:`baseline` is called."""
    from_data: ClassVar[tuple[str, ...]] = ()
    """Options that are properties of the data module too, and taken from there."""

    def __init__(
        self,
        model: str,
        facts: Mapping[str, Any],
        options: dict[str, Any] | None = None,
        start: str | None = None,
        losses: dict[str, float] | None = None,
        learning_rate: float = 2e-4,
        optimizer: Literal["adam", "muon"] = "adam",
        betas: tuple[float, float] = (0.9, 0.99),
        schedule: Literal["step", "cosine"] = "step",
        milestones: tuple[float, ...] = (0.3, 0.5, 0.65, 0.7, 0.75),
        warmup: float = 0.0,
        balance: Literal["none", "importance", "load", "vmoe", "switch", "entropy", "z", "bias"] = "none",
        balance_weight: float = 0.01,
        balance_until: float = 1.0,
        seed: int = 0,
        compile: bool = False,
        stages: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        expect(0 <= learning_rate < math.inf, "learning_rate", learning_rate, "0 or more")
        expect(all(0 <= beta < 1 for beta in betas), "betas", betas, "two numbers from 0 to below 1")
        expect(all(0 <= m <= 1 for m in milestones), "milestones", milestones, "shares of the run, 0 to 1")
        expect(0 <= warmup < 1, "warmup", warmup, "a share of the run, 0 to below 1")
        expect(0 <= balance_weight < math.inf, "balance_weight", balance_weight, "0 or more")
        expect(0 <= balance_until <= 1, "balance_until", balance_until, "a share of the run, 0 to 1")
        expect(0 <= seed < 2**32, "seed", seed, "a whole number from 0 to 4294967295")
        self.save_hyperparameters()
        self.seed = seed
        torch.manual_seed(seed)
        configuration = {**facts, **(options or {})}
        self.trace = RoutingTrace()
        self.start: Card | None = None
        if start is None:
            built = build(model, configuration)
        else:
            loaded = load_as(start, model, configuration)
            built, self.start = loaded.model.train(), loaded.card
        self.model: torch.nn.Module = built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name = model
        known = {**self.known_losses(), **objectives(built)}
        self.recipe_losses = check_losses({next(iter(self.LOSSES)): 1.0} if losses is None else losses, known)
        self.loss_weights = self.recipe_losses
        """Of the stage that training is in."""
        self.stages = Stages(self.model, read_stages(stages, self.model))
        for stage in self.stages.stages:
            if stage.losses is not None:
                check_losses(stage.losses, known)
        self.learning_rate, self.optimizer, self.betas = learning_rate, optimizer, betas
        self.schedule, self.milestones, self.warmup = schedule, milestones, warmup
        self.balance, self.balance_weight, self.balance_until = balance, balance_weight, balance_until
        self.compiled = compile
        self._traces: list[RoutingTrace] = []
        """Of the batches since the last optimiser step."""

    def known_losses(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        """All losses of the family: :attr:`LOSSES`, and those that are made for the data."""
        return self.LOSSES

    def given(self, batch: Batch) -> dict[str, Tensor]:
        """What of a batch the model is given beside the image, by name."""
        return {}

    def predict(self, batch: Batch, trace: RoutingTrace | None = None) -> Tensor:
        """The model's prediction for a batch."""
        prediction: Tensor = self.model(batch["image"], trace=trace, **self.given(batch))
        return prediction

    def truth(self, batch: Batch) -> Tensor:
        """What the prediction is compared with."""
        raise NotImplementedError(f"{type(self).__name__} must define truth")

    def losses(self, batch: Batch, trace: RoutingTrace) -> dict[str, Tensor]:
        """Every term that has a weight, unweighted; those of the model are of all its answers."""
        truth, own, known = self.truth(batch), objectives(self.model), self.known_losses()
        answers: Mapping[str, Tensor] = {}
        if own.keys() & self.loss_weights.keys():
            answers = self.model.answers(batch["image"], trace=trace, **self.given(batch))  # type: ignore[operator]
            prediction = next(iter(answers.values()))
        else:
            prediction = self.predict(batch, trace)
        return {
            name: own[name](answers, truth) if name in own else known[name](prediction, truth)
            for name in self.loss_weights
        }

    def answer(self, prediction: Tensor) -> Tensor:
        """A prediction as metrics and people take it: of logits probabilities."""
        return prediction.float()

    def metrics(self) -> MetricCollection:
        """New metrics of predictions and truths, by names of :data:`geomoe.metrics.measures.MEASURES`."""
        raise NotImplementedError(f"{type(self).__name__} must define metrics")

    def baseline(self, batch: Batch) -> Tensor:
        """An answer of what needs no learning."""
        raise NotImplementedError(f"{type(self).__name__} must define baseline")

    def metrics_by_class(self) -> MetricCollection | None:
        """New metrics that are a value for each class; None where the output has no classes."""
        return None

    def instance_metrics(self) -> Metric | None:
        """New metrics, by name, of what :meth:`instances` gives; None where the model knows no instances."""
        return None

    def instances(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Panoptic maps ``[B, H, W, 2]``, said and true; see :mod:`geomoe.layers.panoptic`."""
        raise NotImplementedError(f"{type(self).__name__} must define instances")

    def by_item(self, answer: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Metrics of each sample of a batch, ``[B]``, ``monitor`` among them.

        Their mean over samples, weighted by :meth:`sizes`, is what :meth:`metrics` gives of all.
        """
        raise NotImplementedError(f"{type(self).__name__} must define by_item")

    def sizes(self, batch: Batch) -> Tensor:
        """How much each sample of a batch counts in metrics, ``[B]``: one, or its pixels with a truth."""
        return torch.ones(len(batch["image"]))

    @classmethod
    def of(cls, weights: LoadedModel) -> Self:
        """The task of trained weights, to evaluate them by; of their training it knows nothing."""
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # what is made here is drawn for nobody
            task = cls(weights.card.model, options=dict(weights.card.config))  # type: ignore[call-arg]
        task.model = weights.model
        return task

    @property
    def chosen_by(self) -> str:
        """The metric of all validation samples by which the best weights are chosen."""
        return self.monitor

    @property
    def protocol_name(self) -> str:
        """Of the scores, for the card."""
        return self.family

    def describe(self, scores: Mapping[str, float]) -> str:
        """Scores in words: the metrics, and what is gained over the baseline."""
        values = {name: value for name, value in scores.items() if name != "gain"}
        return f"{show(values)}, {measure(self.monitor).text(scores['gain'], sign=True)} over {self.base}"

    def validation_scores(self) -> dict[str, float]:
        """What the last validation found: every metric, and ``gain``."""
        found = self.trainer.callback_metrics
        return {name.removeprefix("val/"): float(found[name]) for name in found if name.startswith("val/")}

    def setup(self, stage: str) -> None:
        self._scores, self._base_scores = self.metrics(), self.metrics()
        # After callbacks have been set up: a copy of the model that they hold is not compiled.
        if self.compiled and stage == "fit":
            compile_blocks(self.model, self.trainer.strategy.root_device.type)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out

    def on_train_epoch_start(self) -> None:
        # Checkpoints hold no state of the generator, from which stochastic depth draws: a resumed run has to
        # find it where an uninterrupted one does. Processes draw apart from each other.
        torch.manual_seed(self.seed + self.current_epoch + (self.global_rank << 32))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        stage = self.stages.enter(self.global_step, self._shown)
        if stage is not None:
            self.loss_weights = self.recipe_losses if stage.losses is None else dict(stage.losses)
            if self.trainer.is_global_zero:
                start, end = self.stages.limits(self.global_step)
                sys.stderr.write(f"geomoe: stage {stage.name}, steps {start + 1} to {end}\n")
        if progress := getattr(self.model, "progress", None):
            progress(self.stages.share(self.global_step))

    def _shown(self) -> Iterator[Shown]:
        """All training samples, as the model's ``begin`` sees them."""
        for batch in self.trainer.datamodule.once():  # type: ignore[attr-defined]
            here: Batch = self.trainer.strategy.batch_to_device(batch)
            yield here["image"], self.given(here), self.truth(here)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["stages_begun"] = self.stages.begun

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.stages.begun = checkpoint.get("stages_begun", 0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        trace = RoutingTrace()
        terms = self.losses(batch, trace)
        self.log_dict({f"train/{name}": term for name, term in terms.items()}, prog_bar=True)
        loss = torch.stack([weight * terms[name] for name, weight in self.loss_weights.items()]).sum()
        if self.balance in BALANCE and self._balances():
            loss = loss + self._balance_term(trace)
        self.trace = trace
        return loss

    def _balance_term(self, trace: RoutingTrace) -> Tensor:
        try:
            return balance_loss(trace, {BALANCE[self.balance]: self.balance_weight})
        except ValueError as error:
            raise GeomoeError(f"model.balance={self.balance!r}: {error}") from error

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.balance != "bias":
            return
        self._traces.append(self.trace.detach())
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches and not self.trainer.is_last_batch:
            return
        if self._balances():
            rebalance(self._traces, self.balance_weight)
        self._traces.clear()

    def _balances(self) -> bool:
        return self.global_step < self.balance_until * int(self.trainer.estimated_stepping_batches)

    def _logs_now(self) -> bool:
        # Lightning logs after a step, so that the last of every n is shown.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._logs_now():
            routers = [module for module in self.model.modules() if isinstance(module, AnyRouter)]
            theirs = dict.fromkeys(p for router in routers for p in router.parameters())
            grads = [p.grad.norm() for p in theirs if p.grad is not None]
            norm = torch.stack(grads).norm() if grads else torch.zeros(())
            self.log("routing/router_gradient_norm", norm)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if not len(batch["image"]):
            return  # other processes have a sample left, this one has none
        # Images of any size would each be compiled for.
        eager = torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()
        with torch.autocast(self.device.type, enabled=False), eager:
            self.trace = RoutingTrace()
            prediction = self.predict(batch, self.trace)
        truth = self.truth(batch)
        self._scores.update(self.answer(prediction), truth)
        self._base_scores.update(self.baseline(batch), truth)

    def on_validation_epoch_end(self) -> None:
        # Over all processes: torchmetrics adds up what each has seen.
        scores, base = self._scores.compute(), self._base_scores.compute()
        self._scores.reset()
        self._base_scores.reset()
        gain = measure(self.monitor).gain(scores[self.monitor], base[self.monitor])
        found = {f"val/{name}": value for name, value in (scores | {"gain": gain}).items()}
        self.log_dict(found, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Of the model, and of what a task has beside it for training alone.
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            optimizer = Muon(trained, matrices(self.model), self.learning_rate, self.betas)
        else:
            optimizer = torch.optim.Adam(trained, self.learning_rate, self.betas)
        self.stages.share_out(max(int(self.trainer.estimated_stepping_batches), 1))

        def factor(step: int) -> float:
            shape = (self.schedule, tuple(self.milestones), self.warmup)
            return self.stages.rate(step) * learning_rate_factor(self.stages.share(step), *shape)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
