"""What is asked of an audit: enough to do it, and to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from geomoe.audit.against import against
from geomoe.audit.facts import read_facts
from geomoe.audit.manifest import manifest_of
from geomoe.audit.run import Audit, Step, audit, subject_of
from geomoe.audit.sections import SECTIONS, find_sections
from geomoe.audit.subject import Subject
from geomoe.audit.worth import worth
from geomoe.data.split import Split
from geomoe.models.weights import load

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """An audit by its options.

    Attributes:
        model: name of weights, or a file of them.
        data: folder of the samples.
        split: of the data.
        images: at most so many samples; None for all.
        only: names of sections; empty for all.
        seed: of all that is drawn.
        skip_corrupt: whether samples that cannot be read are left out.
        facts: file of what else is known of samples; see :func:`geomoe.audit.facts.read_facts`.
        against: weights that they are compared with, by name or file; see :mod:`geomoe.audit.against`.
        benchmark: scores of the model and its twins; see :mod:`geomoe.audit.worth`.
    """

    model: str
    data: str
    split: Split = "test"
    images: int | None = None
    only: tuple[str, ...] = ()
    seed: int = 0
    skip_corrupt: bool = False
    facts: str | None = None
    against: tuple[str, ...] = ()
    benchmark: str | None = None

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """As a manifest has it; raises TypeError for options that there are not."""
        lists = {name: asked.get(name) or () for name in ("only", "against")}
        lists = {name: (of,) if isinstance(of, str) else tuple(of) for name, of in lists.items()}
        return cls(**{**asked, **lists})

    def command(self, out: str = "report") -> str:
        """As one types it; what is as usual is left out."""
        words = ["geomoe", "audit", self.model, "--data", self.data, "--out", out]
        words += ["--split", self.split] if self.split != "test" else []
        words += ["--images", str(self.images)] if self.images is not None else []
        words += ["--only", ",".join(self.only)] if self.only else []
        words += ["--seed", str(self.seed)] if self.seed else []
        words += ["--facts", self.facts] if self.facts is not None else []
        words += [word for other in self.against for word in ("--against", other)]
        words += ["--benchmark", self.benchmark] if self.benchmark is not None else []
        words += ["--skip-corrupt"] if self.skip_corrupt else []
        return shlex.join(words)

    def subject(self, say: Callable[[str], None] = lambda line: None) -> Subject:
        """What is audited; ``say`` is told in a line what is left out.

        Raises:
            GeomoeError: as :func:`geomoe.load`, :func:`geomoe.audit.run.subject_of` and
                :func:`geomoe.audit.facts.read_facts`.
        """
        facts = None if self.facts is None else read_facts(Path(self.facts))
        return subject_of(
            load(self.model), Path(self.data), split=self.split, images=self.images, seed=self.seed,
            facts=facts, skip_corrupt=self.skip_corrupt, say=say,
        )  # fmt: skip

    def audit(self, subject: Subject, progress: Callable[[Step], None] = lambda step: None) -> Audit:
        """What is found of :meth:`subject`, with a manifest."""
        sections = find_sections(self.only) if self.only else SECTIONS
        if self.benchmark is not None:
            sections = (partial(worth, path=Path(self.benchmark)), *sections)
        if self.against:
            sections = (*sections, partial(against, others=[load(other) for other in self.against]))
        manifest = manifest_of(self, subject)
        return replace(audit(subject, sections, progress, self.split), manifest=manifest)
