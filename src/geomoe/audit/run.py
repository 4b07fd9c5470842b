"""An audit from weights and data to what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geomoe import __version__
from geomoe.audit.section import Finding, Section, Table
from geomoe.audit.sections import SECTIONS, Question
from geomoe.audit.subject import Subject
from geomoe.audit.verdict import verdict
from geomoe.data.sample import Lazy, Sample
from geomoe.data.split import Split
from geomoe.errors import GeomoeError
from geomoe.models.weights import LoadedModel
from geomoe.tasks.families import family

__all__ = ["Audit", "Step", "audit", "subject_of"]


@dataclass(frozen=True)
class Step:
    """How far an audit is.

    Attributes:
        section: that is asked.
        number, sections: its place, from 1, and how many there are.
        done, samples: of its pass over the samples; a section may make several, of fewer samples too.
    """

    section: str
    number: int
    sections: int
    done: int = 0
    samples: int = 0


@dataclass(frozen=True)
class Audit:
    """What was found of weights on data.

    Attributes:
        weights, hash: name of the model's weights, and what tells them from all others.
        model: its name in the registry.
        task: family of the weights.
        data: what the samples are called.
        samples: how many there were.
        split: of the data; None where samples were given.
        seed: of all that was drawn.
        verdict: what all findings come to.
        sections: in the order of reading.
        manifest: what has to be known to do it again.
    """

    weights: str
    hash: str
    model: str
    task: str
    data: str
    samples: int
    split: str | None
    seed: int
    verdict: Finding
    sections: tuple[Section, ...]
    manifest: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; figures are there by name and caption."""
        plain = ("weights", "hash", "model", "task", "data", "samples", "split", "seed")
        return {
            "geomoe": __version__,
            **{name: getattr(self, name) for name in plain},
            "verdict": _finding(self.verdict),
            "sections": [_section(section) for section in self.sections],
            "manifest": self.manifest,
        }


def _finding(finding: Finding) -> dict[str, str]:
    return {"level": finding.level, "code": finding.code, "text": finding.text}


def _section(section: Section) -> dict[str, Any]:
    return {
        "name": section.name,
        "title": section.title,
        "text": section.text,
        "findings": [_finding(finding) for finding in section.findings],
        "tables": [_table(table) for table in section.tables],
        "figures": [{"name": figure.name, "caption": figure.caption} for figure in section.figures],
        "data": section.data,
    }


def _table(table: Table) -> dict[str, Any]:
    rows = [list(row) for row in table.rows]
    return {"name": table.name, "caption": table.caption, "columns": list(table.columns), "rows": rows}


def _mixed(samples: Sequence[tuple[str, Sample]], number: int, seed: int) -> Lazy:
    """Some of many samples, spread evenly over their list, in random order.

    Neighbours in a list are of one class or scene: the batches of an audit, and the few samples that its
    costly questions are asked of, have to be mixed.
    """
    places = np.random.default_rng(seed).permutation(number) * len(samples) // number
    return Lazy(samples.__getitem__, places.tolist())


def subject_of(
    model: LoadedModel,
    root: str | Path,
    *,
    split: Split = "test",
    images: int | None = None,
    seed: int = 0,
    facts: Mapping[str, Mapping[str, str]] | None = None,
    skip_corrupt: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Subject:
    """Weights, and a part of the data at ``root``, its samples in random order.

    Args:
        model: from :func:`geomoe.load`.
        root: a folder of the data set that the weights are for.
        split: of the data.
        images: at most so many samples, spread evenly over their list; all by default.
        seed: of all that is drawn.
        facts: what else is known of samples by name; see :func:`geomoe.audit.facts.read_facts`.
        skip_corrupt: whether samples that cannot be read are left out, and told of.
        say: told in a line what is left out.

    Raises:
        GeomoeError: no samples, or such that cannot be read or are not for these weights; facts of others.
    """
    named = family(model.card.task).data.named(Path(root), split, model, skip_corrupt=skip_corrupt, say=say)
    if not len(named.samples):
        raise GeomoeError(f"{root} has no samples in the split {split}; choose another one")
    if facts and (first := named.samples[0][0]) not in facts:
        raise GeomoeError(f"the facts have no line for the sample {first}; give each sample one, by its name")
    number = min(images or len(named.samples), len(named.samples))
    return Subject(model, replace(named, samples=_mixed(named.samples, number, seed)), seed, facts or {})


def audit(
    subject: Subject,
    sections: Sequence[Question] = SECTIONS,
    progress: Callable[[Step], None] = lambda step: None,
    split: Split | None = None,
) -> Audit:
    """Ask the questions of an audit of a subject.

    Args:
        subject: weights and samples; see :func:`subject_of`.
        sections: what is asked, of :data:`geomoe.audit.sections.SECTIONS`.
        progress: told when a section begins, and of each batch of samples that it has seen.
        split: that the samples are, for the record.

    Raises:
        GeomoeError: samples that cannot be read.
    """
    found = []
    for number, question in enumerate(sections, 1):
        step = partial(Step, getattr(question, "func", question).__name__, number, len(sections))
        progress(step())
        subject.seen = lambda done, samples, step=step: progress(step(done, samples))  # type: ignore[misc]
        found.append(question(subject))
    return Audit(
        weights=subject.model.name,
        hash=subject.model.hash,
        model=subject.model.card.model,
        task=subject.model.card.task,
        data=subject.samples.data,
        samples=len(subject.samples.samples),
        split=split,
        seed=subject.seed,
        verdict=verdict(found),
        sections=tuple(found),
    )
