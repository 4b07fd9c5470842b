"""``geomoe evaluate --sources``: scores by source, as a table for people, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from geomoe.cli.progress import told
from geomoe.cli.say import say, say_table
from geomoe.errors import GeomoeError
from geomoe.files import overlap, write_text

if TYPE_CHECKING:
    from geomoe.data.split import Part
    from geomoe.evaluation.super_resolution.by_source import SourceScores, Told
    from geomoe.models.precision import Precision

__all__ = ["evaluate_sources"]

_TOLD = {
    "all": "sensor, ground sampling distance, and exactly how the input was made",
    "scene": "what upscale would find of such a scene: sensor, pixel size, the sensor's MTF, noise",
    "nothing": "nothing",
}


def evaluate_sources(
    models: Sequence[str],
    scale: int,
    root: Path,
    given: str,
    *,
    part: Part,
    degradations: Sequence[str],
    protocol: str,
    told_models: Told,
    precision: Precision,
    limit: int | None,
    skip_corrupt: bool,
    device: str,
    out: Path | None,
    markdown: Path | None,
    card: Path | None,
    overwrite: bool,
) -> None:
    """Score models on a part of each source of a file; print or write one table, or note it on a card."""
    from geomoe.evaluation.hardware import hardware
    from geomoe.evaluation.measure import write_measured
    from geomoe.evaluation.super_resolution.by_source import LARGE, TILE, read_sources_part, score_sources
    from geomoe.models import load
    from geomoe.models.device import pick_device
    from geomoe.models.weights import check_target
    from geomoe.tasks.commit import commit
    from geomoe.tasks.source_list import read_sources

    if card is not None:
        check_target(card, overwrite=overwrite)
        whole = part == "test" and limit is None and told_models == "all" and precision == "float32"
        if len(models) > 1 or not whole:
            raise GeomoeError(
                "a card holds what one model makes of all that is held out, in float32; give one --model, "
                "and leave out --part, --limit, --told and --precision"
            )
    listed = read_sources(given)
    targets = [path for path in (out, markdown) if path is not None and str(path) != "-"]
    _check_targets(targets, models, given, root)
    loaded = [load(model, scale, "image") for model in models]
    names = [model.name for model in loaded]
    if len(set(names)) < len(names):
        raise GeomoeError(f"two models are called {max(names, key=names.count)!r}; rename one of the files")
    parts = read_sources_part(
        listed.sources, root, part, validation=listed.validation, limit=limit, skip=skip_corrupt,
        say=lambda line: say(f"geomoe: note: {line}", err=True),
    )  # fmt: skip
    with told("images") as progress:
        rows = score_sources(
            loaded, parts, degradations, protocol=protocol, told=told_models, device=device,
            precision=precision, progress=progress,
        )  # fmt: skip
    header = {
        "weights": ", ".join(f"{model.name} ({model.hash[:12]})" for model in loaded),
        "sources": f"{listed.name}, part {part}" + (f", at most {limit} images each" if limit else ""),
        "scale": f"x{scale}",
        "protocol": protocol,
        "precision": precision,
        "told to informed models": _TOLD[told_models],
        "samples": f"images; if a side has over {LARGE} low-resolution pixels, tiles of about {TILE}",
        "intervals": "95 %, bootstrap over samples",
        "hardware": hardware(pick_device(device)),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit() or "unknown",
    }
    if card is not None:
        write_measured(loaded[0], card, [row.measured(protocol) for row in rows])
    found = {**header, "rows": [row.as_dict() for row in rows]}
    if str(out) == "-":
        say(*json.dumps(found, indent=1).split("\n"))
        return
    heads, cells = _cells(rows, names)
    table = Table(*heads, box=None, title=f"part {part} of {listed.name}, x{scale}, protocol {protocol}")
    for row in cells:
        table.add_row(*row)
    say_table(table)
    if out is not None:
        write_text(out, f"{json.dumps(found, indent=1)}\n")
    if markdown is not None:
        write_text(markdown, _markdown(header, heads, cells))


def _check_targets(targets: Sequence[Path], models: Sequence[str], given: str, root: Path) -> None:
    """Refuse files that cannot be written or are read, before anything is computed for them."""
    for out in targets:
        if not out.parent.is_dir() or out.is_dir():
            raise GeomoeError(f"{out} cannot be written; give a file in a folder that exists")
        # Neither is read of the images.
        data = [] if out.suffix.lower() in (".json", ".md") else [root]
        if overlap([out], [Path(given), *map(Path, models), *data]):
            raise GeomoeError(f"{out} is a file of weights, the list, or among the images; give another one")


def _cells(rows: Sequence[SourceScores], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Titles of columns, and a row for each source and degradation, of which every model has two columns."""
    several = len(names) > 1
    heads = ["source", "sensor", "input", "samples", rows[0].base]
    heads += [head for name in names for head in (f"{name} dB" if several else "PSNR dB", "gain [95 %]")]
    cells = []
    for first in range(0, len(rows), len(names)):
        row = rows[first]
        line = [row.source, row.sensor or "", row.degradation, str(len(row.scores))]
        line.append(f"{row.overall.baseline[row.ranks]:.2f}")
        for each in rows[first : first + len(names)]:
            gain = each.gain
            ends = "" if isnan(gain.low) else f" [{gain.low:+.2f}, {gain.high:+.2f}]"
            line += [f"{each.overall.values[each.ranks]:.2f}", f"{gain.mean:+.2f}{ends}"]
        cells.append(line)
    return heads, cells


def _markdown(header: dict[str, str], heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [f"- {name}: {value}" for name, value in header.items()]
    lines += ["", _line(heads), "|---" * 3 + "|---:" * (len(heads) - 3) + "|", *map(_line, cells), ""]
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
