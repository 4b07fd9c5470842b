"""Audits that nobody made: every kind of cell, figure and finding, and names that try to break out."""

import numpy as np

from geomoe.audit.run import Audit
from geomoe.audit.section import Figure, Finding, Section, Table

NASTY = "<script>alert('x')</script> & 50% of $x_1^2$ \\input{y} ~#{}\"\x1b[2J"
"""A class, file or layer might be called so."""


def made(level="fault", names=("forest", NASTY), manifest=None):
    rng = np.random.default_rng(0)

    def bars(drawing):
        axes = drawing.subplots()
        axes.bar(range(len(names)), [0.3, 0.7], tick_label=list(names))
        axes.set_title(names[-1])

    def image(drawing):
        drawing.set_size_inches(9, 3)
        axes = drawing.subplots(1, 3)
        for place in axes:
            place.imshow(rng.random((16, 16)))
            place.set_axis_off()

    usage = Section(
        "usage",
        "Which experts are used?",
        "Plans of all samples.\n\nLoad is an expert's share.",
        (Finding(level, "dead_expert", f"Expert 2 of {names[-1]} is dead."), Finding("sound", "ok", "Even.")),
        (
            Table(
                "load",
                f"Load of {names[-1]}.",
                ("layer", *(f"expert {e}" for e in range(16)), "p"),
                tuple((names[i], *(rng.random(16) * 0.3).tolist(), 10.0 ** -(6 * i)) for i in range(2)),
            ),
            Table(
                "counts",
                "Counts.",
                ("what", "number", "share", "remark"),
                (("a", 12345, 0.5, None), ("b", 7, float("nan"), "x")),
            ),
        ),
        (Figure("bars", f"Bars of {names[-1]}.", bars), Figure("maps", "Maps.", image)),
        {"load": [0.25, float("nan"), float("inf")], "name": names[-1]},
    )
    empty = Section("other", "Is there more?", "Nothing.", (Finding("note", "none", "No."),))
    return Audit(
        "weights <x>", "0123abcd", "vmoe", "scene_classification", names[-1], 12, "test", 0,
        Finding(level, "dead_expert", f"Expert 2 of {names[-1]} is dead."), (usage, empty),
        manifest
        if manifest is not None
        else {
            "command": "geomoe audit 'weights <x>.safetensors' --data /data/a --out report",
            "date": "2026-11-26",
            "request": {"model": "weights <x>.safetensors", "data": "/data/a"},
            "data": {"name": names[-1], "crs": None, "samples": [1, 2]},
            "samples": {f"{i}.png": "00" for i in range(40)},
        },
    )  # fmt: skip
