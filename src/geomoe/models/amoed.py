"""AMoED: an expert a satellite teaches new classes to a student that must not forget the old ones.

Fu et al. 2025, adaptive mixture-of-experts distillation for cross-satellite scenes (IEEE TCSVT,
10.1109/TCSVT.2025.3598274), by its abstract and the survey's description; the program could not be had.
From there: in each session one expert a satellite, trained by itself on the new classes; their predictions
mixed by a confidence that knows no domain; a student that goes on from the last session's, and learns from
the mixture, the labels and its former self on as many samples of every class and satellite; styles mixed in
shallow layers. Assumed: everything in numbers, how confidence is calibrated, and the direction of both
distillations, in which the teacher's prediction is the target (Hinton et al. 2015). What answers is the
student alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.layers.convolution import conv3x3
from geomoe.layers.mix_style import MixStyle
from geomoe.models.contract import ModelContract
from geomoe.models.decision_moe import CalibratedConfidence, DecisionMoE
from geomoe.models.label import Normalise, label_contract
from geomoe.models.options import ClassConfig
from geomoe.models.registry import register
from geomoe.models.stages import Shown, Stage
from geomoe.moe import ModuleExperts, distillation_loss
from geomoe.moe.objectives.balance import mean
from geomoe.moe.plan import RoutingTrace

__all__ = ["AMoED", "AMoEDConfig", "from_mixture", "from_previous", "of_experts"]

_GROUPS = 4
"""Of the group norms: a sample does not depend on its batch, and an average of weights has no statistics."""
_MIXED = 2
"""Blocks after which styles are mixed."""


@dataclass(frozen=True)
class AMoEDConfig(ClassConfig):
    """Everything that makes an :class:`AMoED`.

    Attributes:
        new: the last so many classes are those of this session; 0 for all, in the first one.
        experts: one for each satellite.
        widths: channels of the residual blocks of student and experts; the grid is halved before each.
        vote: what experts are weighed by; ``even`` is the control that asks what confidence is worth.
        style: probability that the styles of a batch are mixed.
        twin: ``active`` and ``parameters``, which are one here, as every expert is heard on every sample: one
            teacher for all satellites, as large as the experts together.
    """

    # Of weights that a session starts from the student alone is taken.
    ADAPTS: ClassVar[tuple[str, ...]] = ("classes", "new", "experts", "vote", "style", "twin")
    new: int | Literal[0] = 0
    experts: int = 3
    widths: tuple[int, ...] = (16, 32, 64)
    vote: Literal["confidence", "even"] = "confidence"
    style: float = 0.5
    twin: Literal["none", "active", "parameters"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width % _GROUPS for width in self.widths):
            raise ValueError(f"widths={self.widths!r}: expected multiples of {_GROUPS}")
        if self.classes and not 0 <= self.new <= len(self.classes):
            raise ValueError(f"new={self.new}: expected at most the {len(self.classes)} classes")
        if not 0 <= self.style <= 1:
            raise ValueError(f"style={self.style}: expected 0 to 1")

    @property
    def known(self) -> int:
        """Classes of earlier sessions, which come first."""
        return max(len(self.classes) - self.new, 0) if self.new else 0


class _Block(nn.Module):
    """``gelu(f(x) + shortcut(x))`` on half the grid (He et al. 2016)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, width, 2), nn.GroupNorm(_GROUPS, width), nn.GELU(),
            conv3x3(width, width), nn.GroupNorm(_GROUPS, width),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(channels, width, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.body(x) + self.shortcut(x))


class _Network(nn.Module):
    """A small residual network: student, expert, or what the student was."""

    def __init__(self, c: AMoEDConfig, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv3x3(c.bands, widths[0]), nn.GroupNorm(_GROUPS, widths[0]), nn.GELU())
        self.blocks = nn.ModuleList(map(_Block, (widths[0], *widths), widths))
        self.style = MixStyle(c.style)
        self.head = nn.Linear(widths[-1], classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, bands, H, W]`` to logits ``[B, classes]``, or features ``[B, C]`` where there are none."""
        y = self.stem(x)
        for number, block in enumerate(self.blocks, 1):
            y = block(y)
            y = self.style(y) if number <= _MIXED else y
        out: Tensor = self.head(y.mean((2, 3)))
        return out


def of_experts(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy of what each sample's own expert says, over the samples of new classes."""
    logits = answers["experts"]
    known = answers["student"].shape[1] - logits.shape[1]
    new = truth >= known
    return mean(F.cross_entropy(logits[new], truth[new] - known, reduction="none"))


def from_mixture(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Distillation of the experts' mixture into the student at a temperature of 2, of new classes alone."""
    teacher = answers["mixture"]
    return _distilled(answers["student"][:, -teacher.shape[1] :], teacher)


def from_previous(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """The same of the previous student, of old classes alone; 0 in the first session."""
    student = answers["student"]
    if "previous" not in answers:
        return student.new_zeros(())
    return _distilled(student[:, : answers["previous"].shape[1]], answers["previous"])


def _distilled(student: Tensor, teacher: Tensor) -> Tensor:
    return distillation_loss(student, teacher, student.new_zeros(()), share=1.0, temperature=2.0)


class AMoED(nn.Module):
    """Says what a whole image shows, of the classes of all sessions so far.

    Example:
        >>> import torch
        >>> from geomoe.models.amoed import AMoED, AMoEDConfig
        >>> model = AMoED(AMoEDConfig(classes=("beach", "forest", "port", "river"), new=2, widths=(8, 8)))
        >>> model(torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 4])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "experts": of_experts, "mixture": from_mixture, "previous": from_previous,
    }  # fmt: skip
    """Losses of its own, of what :meth:`answers` gives and the truth."""
    takes_domain: ClassVar = True
    """It is told while training which satellite took each sample."""

    def __init__(self, config: AMoEDConfig) -> None:
        super().__init__()
        c = self.config = config
        number = c.experts if c.twin == "none" else 1
        wider = math.sqrt(c.experts / number)  # parameters and cost grow with the square
        widths = tuple(round(width * wider / _GROUPS) * _GROUPS for width in c.widths)
        self.normalise = Normalise(c)
        self.student = _Network(c, c.widths, len(c.classes))
        self.previous = _Network(c, c.widths, c.known).requires_grad_(False) if c.known else None
        self.mixture: DecisionMoE | None = None
        if c.classes:
            vote = CalibratedConfidence(number) if c.vote == "confidence" else c.vote
            members = [_Network(c, widths, len(c.classes) - c.known) for _ in range(number)]
            self.mixture = DecisionMoE(members, vote)

    @property
    def contract(self) -> ModelContract:
        return label_contract(self.config, self.config.widths[-1])

    @property
    def experts(self) -> list[nn.Module]:
        """Networks from normalised images to logits of the new classes."""
        if self.mixture is None:
            return []
        bank = self.mixture.moe.bank
        assert isinstance(bank, ModuleExperts)
        return [member.get_submodule("0") for member in bank.experts]  # before its softmax

    @property
    def confidence(self) -> CalibratedConfidence | None:
        """What experts are weighed by; None where that is nothing."""
        vote = None if self.mixture is None else getattr(self.mixture.moe, "score", None)
        return vote if isinstance(vote, CalibratedConfidence) else None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """First the experts, then the student, which learns by the losses of the recipe."""
        if self.mixture is None:
            return ()
        return Stage("experts", 360, ("mixture",), {"experts": 1.0}), Stage("student", 250, ("student",))

    @property
    def keeps_start(self) -> bool:
        """Whether it is of no use without the weights of the session before."""
        return self.previous is not None

    def inherit(self, before: nn.Module) -> None:
        """Go on from the student of the session before; its rows of the head stay, new ones are random.

        Raises:
            GeomoeError: a session whose classes are not the first of this one's.
        """
        assert isinstance(before, AMoED)
        had, old = before.config.classes, self.config.classes[: self.config.known]
        if self.previous is None or had != old:
            raise GeomoeError(
                f"weights that know {', '.join(had)} were given to a session whose old classes are "
                f"{', '.join(old) or 'none'}; give those of the session before"
            )
        self.previous.load_state_dict(before.student.state_dict())
        with torch.no_grad():
            for name, mine in self.student.named_parameters():
                theirs = before.student.get_parameter(name)
                mine[: len(theirs)].copy_(theirs)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.previous is not None:
            self.previous.eval()
        return self

    def begin(self, stage: str, batches: Iterable[Shown]) -> None:
        """Calibrate the experts before the student learns from them, on samples that were kept from them."""
        if stage != "student" or self.confidence is None:
            return
        said, truths, domains = [], [], []
        for image, given, truth in batches:
            x = self.normalise(image)
            said.append(torch.stack([expert(x).softmax(1) for expert in self.experts], 1))
            truths.append(truth - self.config.known)
            domains.append(self._taught(given["domain"]))
        self.confidence.fit(torch.cat(said), torch.cat(truths), torch.cat(domains))

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, domain: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``student``, logits ``[B, classes]``, and what teaches or is taught meanwhile.

        While experts learn that is ``experts``, the logits ``[B, new]`` of the expert of each sample's
        satellite, or of all of them, ``[B, E, new]``, where nobody says which; while the student learns
        ``mixture``, log probabilities ``[B, new]``, and from the second session on ``previous``, logits
        ``[B, known]``, both without gradient.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size.
            trace: if given, the plan of the mixture is appended to it; a row is an image.
            domain: ``[B]`` int64, the satellite that took each sample.
        """
        x = self.normalise(x)
        found = {"student": self.student(x)}
        if self.mixture is None:
            return found
        if _learns(self.mixture):
            found["experts"] = self._own(x, domain)
        if _learns(self.student):
            with torch.no_grad():
                found["mixture"] = self.mixture(x, trace)
                if self.previous is not None:
                    found["previous"] = self.previous(x)
        return found

    def _taught(self, domain: Tensor) -> Tensor:
        """``[B]``, the expert that learns from samples of each domain."""
        if int(domain.max()) >= self.config.experts:
            raise GeomoeError(
                f"experts={self.config.experts}: a sample is of satellite {int(domain.max()) + 1}; "
                "give as many --model.options.experts as there are --data.satellites"
            )
        return domain if self.config.twin == "none" else torch.zeros_like(domain)

    def _own(self, x: Tensor, domain: Tensor | None) -> Tensor:
        if domain is None:
            return torch.stack([expert(x) for expert in self.experts], 1)
        expert_of = self._taught(domain)
        places = [(expert_of == e).nonzero()[:, 0] for e in range(len(self.experts))]
        said = torch.cat([expert(x[rows]) for expert, rows in zip(self.experts, places, strict=True)])
        return said[torch.cat(places).argsort()]

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, domain: Tensor | None = None) -> Tensor:
        """The student's logits ``[B, classes]``, or its features; nothing is routed, no domain looked at."""
        out: Tensor = self.student(self.normalise(x))
        return out


def _learns(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


register("amoed", AMoED, AMoEDConfig, gives="label")
