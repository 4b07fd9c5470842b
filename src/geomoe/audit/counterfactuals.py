"""Does the routing matter? The learned plan is replaced by others, and the same samples are scored again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from geomoe.audit.oracle import oracle_plan
from geomoe.audit.plans import Shuffle, changed, most_used, several_rows
from geomoe.audit.rows import blocks_a_side
from geomoe.audit.section import Figure, Finding, Level, Section, Table
from geomoe.audit.subject import Subject
from geomoe.audit.units import Scored, score_units
from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.evaluation.samples import batches
from geomoe.evaluation.statistics import Interval
from geomoe.metrics.measures import measure
from geomoe.moe.plan import Replay, RoutingPlan, RoutingTrace
from geomoe.printable import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["ARMS", "counterfactuals"]

ARMS = {
    "random": "random experts",
    "shuffled": "shuffled within the sample",
    "other_sample": "plan of another sample",
    "most_used": "the most used experts",
    "gates_kept": "experts shuffled, gates kept",
}
"""Plans in the place of the learned one, by the names that they have in the data."""

_FEW = 16
"""Samples at least of which layers are changed one by one."""

_EIGHTY = 1 + 0.8416 / 1.96
"""Of an effect over half of its interval, to be found with a probability of 80 %: normal quantiles."""

Made = Callable[[int, RoutingPlan], RoutingPlan]
"""Of the number of a layer and its learned plan, the plan in its place."""


@dataclass(frozen=True)
class Effect:
    """What the learned plan gains over another one, on the same samples or blocks.

    Attributes:
        gain: in the metric; above 0 the learned plan is better.
        loss: in the loss, which sees what a metric of right and wrong does not.
        learned, other: means of the metric.
        units: samples or blocks that were compared.
    """

    gain: Interval
    loss: Interval
    learned: float
    other: float
    units: int

    @property
    def helps(self) -> bool:
        """Whether the learned plan is better in the metric, by the whole of the interval."""
        return self.gain.low > 0

    @property
    def helps_loss(self) -> bool:
        """The same of the loss."""
        return self.loss.low > 0

    @property
    def smallest(self) -> float:
        """The gain that such an interval would leave 0 out of in four of five cases; nan of one sample."""
        return self.gain.half * _EIGHTY

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "gain": self.gain.mean,
            "interval_95": self.gain.ends,
            "smallest_seen": None if self.gain.ends is None else self.smallest,
            "loss_gain": self.loss.mean,
            "loss_interval_95": self.loss.ends,
            "learned": self.learned,
            "other": self.other,
            "units": self.units,
        }


def counterfactuals(subject: Subject) -> Section:
    """The learned plan against random, shuffled, foreign, constant and oracle ones, on the same samples."""
    if not subject.tallies:
        return Section("counterfactuals", _TITLE, "The model recorded no routing plan.")
    try:
        found = _Comparison(subject)
        for step in found.steps():
            found.compare(*step)
    except ValueError as error:
        if not str(error).startswith(("replay:", "a soft mixture")):
            raise
        said = f"The plans of this model cannot be replaced: {error}."
        return Section("counterfactuals", _TITLE, said, (Finding("note", "plans_not_replaced", said),))
    return found.section()


_TITLE = "Does the routing matter?"


class _Comparison:
    """Scores under every plan, gathered batch by batch."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.task = subject, subject.task
        self.shuffle = Shuffle(subject.seed)
        tallies = subject.tallies
        self.layers = list(tallies)
        self.used = [t.choices.argsort(descending=True, stable=True).tolist() for t in tallies.values()]
        self.samples = len(subject.samples.samples)
        passes = sum(tally.experts + 2 for tally in tallies.values())
        self.few = max(_FEW, 2 * self.samples // max(passes, 1))
        """Of all samples twice as many passes are made as there are of the costly kind."""
        self.learned = Scored()
        self.arms: dict[str, Scored] = {}
        self.learned_few = Scored()
        self.alone: dict[str, Scored] = {}
        self.oracle: dict[str, Scored] = {}
        self.by_row: dict[str, bool] = {}
        self.done, self.side, self.several, self.chosen = 0, 1, False, True

    def steps(self) -> Iterator[tuple[Batch, RoutingTrace, Tensor, tuple[RoutingTrace, int] | None]]:
        """Batches with plans and predictions, and plans of other samples: of the batch, or an earlier one."""
        earlier: tuple[RoutingTrace, int] | None = None
        for _, batch in self.subject.batches():
            trace = RoutingTrace()
            prediction = self.subject.predict(batch, trace)
            mine = trace, len(prediction)
            if mine[1] == 1 and earlier is None and self.samples > 1:
                [(_, last)] = batches([self.subject.samples.samples[-1]])
                other = RoutingTrace()
                self.subject.predict(last, other)
                earlier = other, 1
            yield batch, trace, prediction, mine if mine[1] > 1 else earlier
            earlier = mine

    def compare(
        self,
        batch: Batch,
        trace: RoutingTrace,
        prediction: Tensor,
        donor: tuple[RoutingTrace, int] | None,
    ) -> None:
        """Score a batch under every plan."""
        size = len(prediction)
        if not self.done:
            self.side = blocks_a_side(self.subject) if prediction.ndim == 4 else 1
            self.several = any(several_rows(plan, size) for plan in trace)
            self.chosen = any(_chosen(plan) for plan in trace)
        learned = self._score(prediction, batch)
        self.learned.add(learned)
        arms = self._made(size, donor)
        for name, make in arms.items():
            plans = [make(i, plan) for i, plan in enumerate(trace)]
            self.arms.setdefault(name, Scored()).add(self._score(self._replayed(batch, plans), batch))
        if self.done < self.few:
            self.learned_few.add(learned)
            for i in range(len(trace)):
                self._layer(i, batch, trace, prediction, arms)
        self.done += size

    def _made(self, size: int, donor: tuple[RoutingTrace, int] | None) -> dict[str, Made]:
        draw = self.shuffle
        made: dict[str, Made] = {"random": lambda i, plan: changed(plan, size, draw.uniform)}
        if self.several:
            made["shuffled"] = lambda i, plan: changed(plan, size, draw.within)
        if donor is not None:
            of, donors = donor
            made["other_sample"] = lambda i, plan: changed(plan, size, draw.across(of[i], donors))
        made["most_used"] = lambda i, plan: changed(plan, size, most_used(self.used[i][: plan.top_k]))
        if self.chosen:
            made["gates_kept"] = lambda i, plan: changed(
                plan, size, draw.gates_kept(plan if donor is None else donor[0][i])
            )
        return made

    def _layer(
        self, i: int, batch: Batch, trace: RoutingTrace, prediction: Tensor, arms: Mapping[str, Made]
    ) -> None:
        """One layer changed and the others as they were: shuffled, and by the oracle."""
        name, plan = self.layers[i], trace[i]

        def predict(other: RoutingPlan) -> Tensor:
            return self._replayed(batch, [*trace.plans[:i], other, *trace.plans[i + 1 :]])

        shuffled = arms.get("shuffled" if several_rows(plan, len(prediction)) else "other_sample")
        if shuffled is not None and len(trace) > 1:
            scores = self._score(predict(shuffled(i, plan)), batch)
            self.alone.setdefault(name, Scored()).add(scores)
        best, self.by_row[name] = oracle_plan(self.task, batch, plan, prediction, predict)
        self.oracle.setdefault(name, Scored()).add(self._score(predict(best), batch))

    def _replayed(self, batch: Batch, plans: list[RoutingPlan]) -> Tensor:
        return self.subject.predict(batch, Replay(plans))

    def _score(self, prediction: Tensor, batch: Batch) -> Scored:
        return score_units(self.task, prediction, batch, self.side)

    def _effect(self, other: Scored, learned: Scored) -> Effect:
        return Effect(
            learned.gain(other, self.task.monitor),
            learned.gain(other, None),
            learned.mean(),
            other.mean(),
            len(learned.size),
        )

    def section(self) -> Section:
        """What was found; raises GeomoeError where no sample has a truth."""
        if not self.learned.size:
            data = self.subject.samples.data
            raise GeomoeError(f"no sample of {data} has a truth to be scored by; choose another split")
        monitor = self.task.monitor
        arms = {name: self._effect(self.arms[name], self.learned) for name in ARMS if name in self.arms}
        alone = {name: self._effect(scored, self.learned_few) for name, scored in self.alone.items()}
        oracle = {name: self._effect(scored, self.learned_few) for name, scored in self.oracle.items()}
        unit = "sample" if self.side == 1 else "block"
        shown = {ARMS[name]: effect for name, effect in arms.items()}
        tables = [_table("counterfactuals", "What the learned plan gains over others.", shown, monitor)]
        if alone:
            caption = "What the plan of one layer gains over its shuffle, the other layers as they were."
            tables.append(_table("layers_alone", caption, alone, monitor))
        kinds = {name: "rows" if by_row else "samples" for name, by_row in self.by_row.items()}
        named = {f"{name}, by {kinds[name]}": effect for name, effect in oracle.items()}
        caption = "What the learned plan of one layer gains over the oracle's; below 0 the oracle is better."
        tables.append(_table("oracle", caption, named, monitor))
        return Section(
            "counterfactuals",
            _TITLE,
            _text(unit, self.side, self.several, self.chosen, "other_sample" in arms),
            tuple(_findings(arms, oracle, monitor, unit)),
            tuple(tables),
            (Figure("counterfactuals", _caption(monitor, unit), lambda d: _draw(d, shown, monitor)),),
            {
                "monitor": monitor,
                "unit": unit,
                "arms": {name: effect.as_dict() for name, effect in arms.items()},
                "layers_alone": {name: effect.as_dict() for name, effect in alone.items()},
                "oracle": {
                    name: {**effect.as_dict(), "chosen_for": kinds[name]} for name, effect in oracle.items()
                },
            },
        )


def _chosen(plan: RoutingPlan) -> bool:
    """Whether rows have experts of their own, and not all of them in one order."""
    return plan.top_k < plan.num_experts or bool((plan.experts != plan.experts[:1]).any())


def _text(unit: str, side: int, several: bool, chosen: bool, others: bool) -> str:
    over = "samples" if unit == "sample" else f"spatial blocks, {side} x {side} of each image"
    parts = [
        "Every layer carries out another plan than its router's, on the same samples: random experts with "
        "weights of other rows of the sample; the rows' plans shuffled within the sample, so that use stays "
        "as it is; the plan of another sample, row by row from the same place (the nearest where sizes "
        "differ); the most used experts for every row; or the learned weights with experts of other rows. "
        "The most used experts and the last one keep what the gates' strength does, and take the choice "
        "alone away. Intervals are paired, at 95 %, over "
        f"{over}.",
        "The oracle chooses with the truth in hand, for one layer at a time and on fewer samples: of the "
        "learned choice and each expert alone what has the least loss when all rows have it, in the row's "
        "own pixels or in the sample. Part of what it gains is chance: it is a bound, no aim.",
        "A model that depends on its routing, for its experts were trained with it, need not be better than "
        "a dense one that was trained alike: that is asked of its twins, by geomoe benchmark.",
    ]
    if not several:
        parts.append("Each sample is one row, so that nothing can be shuffled within it.")
    if not chosen:
        parts.append("All are run: every row has the same experts, and none of others.")
    if not others:
        parts.append("There is one sample, so that there is no plan of another one.")
    return " ".join(parts)


_WITH = {
    "shuffled": "its plan shuffled within the sample",
    "other_sample": "the plan of another sample",
    "most_used": "the most used experts",
    "gates_kept": "the experts of other rows and its own weights",
}

_DOUBTS: dict[str, tuple[Level, str, str]] = {
    "shuffled": ("note", "rows_are_alike", "Inside a sample rows may exchange their plans"),
    "other_sample": ("warning", "plan_ignores_content", "The plan follows the place and not the content"),
    "most_used": ("warning", "most_used_as_good", "Always the same experts would do as well"),
}


def _amount(gain: Interval, monitor: str) -> str:
    """``0.894 dB of PSNR (0.222 to 1.566)``."""
    of = measure(monitor)
    ends = "" if gain.ends is None else f" ({gain.low:.{of.digits}f} to {gain.high:.{of.digits}f})"
    return f"{of.text(gain.mean)} of {of.title}{ends}"


def _findings(
    arms: Mapping[str, Effect], oracle: Mapping[str, Effect], monitor: str, unit: str
) -> list[Finding]:
    shuffles = {name: arms[name] for name in ("shuffled", "other_sample") if name in arms}
    if not shuffles or arms["random"].units == 1:
        text = "There is one sample alone: whether its plan is better than others' cannot be said."
        return [Finding("note", "one_sample", text)]

    def loses(*names: str) -> str:
        parts = [f"{_amount(arms[name].gain, monitor)} with {_WITH[name]}" for name in names]
        return f"the model loses {', '.join(parts)}, over {counted(arms[names[0]].units, unit)}"

    found = []
    better = [name for name, effect in shuffles.items() if effect.helps]
    in_loss = [name for name, effect in shuffles.items() if effect.helps_loss]
    if not better and not in_loss:
        text = f"Routing does not matter to the model: {loses(*shuffles)}."
        found.append(Finding("fault", "not_better_than_shuffled", text))
    elif (kept := arms.get("gates_kept")) is not None and not kept.helps and not kept.helps_loss:
        text = f"Which expert a row is given does not matter: {loses('gates_kept')}."
        found.append(Finding("fault", "choice_does_not_matter", text))
    elif not better:
        loss = shuffles[in_loss[0]].loss
        text = (
            f"Routing is not shown to matter but in the loss, which is lower by {loss.mean:.3g} "
            f"({loss.low:.3g} to {loss.high:.3g}): {loses(*shuffles)}."
        )
        found.append(Finding("warning", "matters_in_loss_alone", text))
    else:
        surely_first = sorted(shuffles, key=lambda name: name not in better)
        text = f"Routing matters to the model: {loses(*surely_first)}."
        found.append(Finding("sound", "routing_matters", text))
    if not any(finding.level == "fault" for finding in found):
        for name, (level, code, text) in _DOUBTS.items():
            if name in arms and not arms[name].helps and not arms[name].helps_loss:
                found.append(Finding(level, code, f"{text}: {loses(name)}."))
    if smallest := [shuffles[name].smallest for name in shuffles if shuffles[name].smallest > 0]:
        amount = measure(monitor).text(min(smallest))
        text = f"A loss of {amount} would have been seen with a probability of 80 % on these samples."
        found.append(Finding("note", "smallest_effect", text))
    if oracle:
        layer = min(oracle, key=lambda name: oracle[name].gain.mean)
        gain, units = oracle[layer].gain, counted(oracle[layer].units, unit)
        amount = _amount(Interval(-gain.mean, -gain.high, -gain.low), monitor)
        most = "The oracle" if len(oracle) == 1 else f"The oracle of {layer}, which is the furthest ahead,"
        text = f"{most} gains {amount} over the learned plan, over {units}."
        found.append(Finding("note", "oracle_gap", text))
    return found


def _table(name: str, caption: str, effects: Mapping[str, Effect], monitor: str) -> Table:
    ends = ("low", "high")
    columns = ("plan", _title(monitor), "gain of learned", *ends, "loss gain", *ends, "compared")
    rows = []
    for label, effect in effects.items():
        gains = [end for i in (effect.gain, effect.loss) for end in (i.mean, *(i.ends or (None, None)))]
        rows.append((label, effect.other, *gains, effect.units))
    if effects:
        rows.insert(0, ("learned", next(iter(effects.values())).learned, *(None,) * 7))
    return Table(name, caption, columns, tuple(rows))


def _caption(monitor: str, unit: str) -> str:
    return (
        f"{_title(monitor)} that the learned plan gains over others, with paired 95 % intervals over "
        f"{unit}s; right of 0 the learned plan is better."
    )


def _title(monitor: str) -> str:
    of = measure(monitor)
    return f"{of.title} [{of.unit}]" if of.unit else of.title


def _draw(drawing: Drawing, effects: Mapping[str, Effect], monitor: str) -> None:
    drawing.set_size_inches(6, 0.4 * len(effects) + 0.9)
    axes = drawing.subplots()
    for y, effect in enumerate(effects.values()):
        gain = effect.gain
        axes.plot(gain.mean, y, "o", color="C0")
        if gain.ends is not None:
            axes.plot(gain.ends, [y, y], color="C0")
    axes.axvline(0, color="0.3", linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(effects)), list(effects))
    axes.invert_yaxis()
    axes.set_xlabel(f"gain of the learned plan, {_title(monitor)}")
