"""The questions of an audit, in the order of reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from geomoe.audit.calibration import calibration
from geomoe.audit.corruption import corruption
from geomoe.audit.cost import cost
from geomoe.audit.counterfactuals import counterfactuals
from geomoe.audit.dependence import dependence
from geomoe.audit.gradient import gradient
from geomoe.audit.maps import maps
from geomoe.audit.ood import ood
from geomoe.audit.probes import probes
from geomoe.audit.quality import quality
from geomoe.audit.section import Section
from geomoe.audit.stability import stability
from geomoe.audit.subject import Subject
from geomoe.audit.usage import usage
from geomoe.errors import GeomoeError

__all__ = ["SECTIONS", "Question", "find_sections"]

Question = Callable[[Subject], Section]

SECTIONS: tuple[Question, ...] = (
    quality,
    counterfactuals,
    gradient,
    cost,
    usage,
    dependence,
    probes,
    maps,
    stability,
    corruption,
    calibration,
    ood,
)
"""Each is named after its function; one that is added here is in the command and in the report."""


def find_sections(names: Sequence[str]) -> tuple[Question, ...]:
    """Those called so, in the order of :data:`SECTIONS`; raises GeomoeError for a name of none."""
    known = [question.__name__ for question in SECTIONS]
    for name in names:
        if name not in known:
            raise GeomoeError(f"no section of an audit is called {name!r}; there are: {', '.join(known)}")
    return tuple(question for question in SECTIONS if question.__name__ in names)
