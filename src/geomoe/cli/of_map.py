"""What `geomoe predict` makes of a map of classes when the map is there: whether it can, before; and that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomoe.cli.progress import told
from geomoe.cli.say import say
from geomoe.errors import GeomoeError
from geomoe.printable import counted

if TYPE_CHECKING:
    from geomoe.pipeline import Request

__all__ = ["OfMap", "is_made"]

_OF_MANY = ("manifest", "processes", "scheduler", "retries", "scene_timeout", "report", "dry_run")


def is_made(src: str, dst: str, **given: Any) -> bool:
    """Whether a map that is there already is the one that would be made."""
    from geomoe.pipeline.batch.scene import is_done

    if not Path(dst).exists() or given["overwrite"]:
        return False
    return is_done(_request(given | {"src": src, "dst": dst}))


def _request(given: Mapping[str, Any]) -> Request:
    from geomoe.pipeline import Request

    return Request.of(**{name: value for name, value in given.items() if name not in _OF_MANY})


@dataclass(frozen=True)
class OfMap:
    """What is wanted of a map.

    Attributes:
        picture, vectors, summary: where each goes; None where it is not wanted.
        classes: of the polygons, by their names; all of them if none is named.
        least: pixels that a polygon has at least.
        zones: in which classes are counted.
        instances: where the map of these goes, by which polygons are parted.
    """

    picture: Path | None
    vectors: Path | None
    summary: Path | None
    classes: Sequence[str]
    least: int
    zones: Path | None
    instances: Path | None = None

    @property
    def wanted(self) -> dict[str, Path]:
        """Where everything goes, by its option."""
        of = {"--picture": self.picture, "--vectors": self.vectors, "--summary": self.summary}
        return {option: path for option, path in of.items() if path is not None}

    def check(self, given: Mapping[str, Any]) -> list[str]:
        """Refuse what could not be written once the map is there, which may take hours.

        Args:
            given: to the command, for the map.

        Returns:
            What would be written, a line for each.
        """
        from geomoe.evaluation.figures import check_target
        from geomoe.files import overlap, writable_place
        from geomoe.models import load
        from geomoe.raster.vectors.strips import find_pyogrio

        src, dst, model = given["src"], given["dst"], given["model"]
        read = [*map(Path, filter(None, (src, given["after"], model, dst, self.zones)))]
        begun = _begun(Path(dst))
        for name, path in self.wanted.items():
            overwrite = given["overwrite"] or str(path.absolute()) in begun
            if name == "--picture":
                check_target(path, Path(src), (model, dst), overwrite=overwrite)
                continue
            ending = ".gpkg" if name == "--vectors" else ".csv"
            if path.suffix.lower() != ending:
                raise GeomoeError(f"{path} must end in {ending}")
            others = [other for other in self.wanted.values() if other is not path]
            if overlap([path], [*read, *others]):
                raise GeomoeError(f"{path} is among what is read or written; give {name} another file")
            if path.exists() and not overwrite:
                raise GeomoeError(f"{path} exists; use --overwrite to replace it")
            writable_place(path)
        contract = load(model).contract
        contract.expect("classes", model, f", for {next(iter(self.wanted))}")
        known = [name for output in contract.outputs.values() for name in output.classes]
        for name in self.classes:
            if name not in known:
                raise GeomoeError(f"{model} has no class {name!r}; it has: {', '.join(known)}")
        if self.vectors is not None:
            find_pyogrio("polygons")
        return [f"{option[2:]:<8} {path}: {said}" for option, path, said in self._said(given)]

    def _said(self, given: Mapping[str, Any]) -> list[tuple[str, Path, str]]:
        lines = []
        if self.picture is not None:
            lines.append(("--picture", self.picture, "the map with its legend"))
        if self.vectors is not None:
            least = f", of {self.least} pixels or more" if self.least > 1 else ""
            parted = ", parted by instances" if self.instances else ""
            what = f"polygons of {', '.join(self.classes) or 'all classes'}{least}{parted}"
            lines.append(("--vectors", self.vectors, what))
        if self.summary is not None:
            where = "the whole map"
            if self.zones is not None:
                from geomoe.raster.vectors.summary import zones_on

                with _request(given).open() as scene:
                    where = counted(len(zones_on(scene, self.zones)), "zone")
            lines.append(("--summary", self.summary, f"classes of {where}"))
        return lines

    def write(self, made: Path) -> None:
        """Everything, of a map that is there.

        A process that is killed leaves a note of what it was at; what the next one finds of that is its own.
        """
        from geomoe.files import write_text

        note = _note(made)
        write_text(note, json.dumps([str(path.absolute()) for path in self.wanted.values()]))
        if self.picture is not None:
            from geomoe.evaluation.map_picture import draw_map

            draw_map(made, self.picture)
            say(f"{self.picture}: the map with its legend")
        if self.vectors is not None:
            from geomoe.raster.vectors.polygons import write_polygons

            with told("strips") as progress:
                number = write_polygons(
                    made, self.vectors, self.classes, self.least, None, progress, self.instances
                )
            say(f"{self.vectors}: {counted(number, 'polygon')}")
        if self.summary is not None:
            from geomoe.raster.vectors.summary import write_summary

            say(f"{self.summary}: {counted(write_summary(made, self.summary, self.zones), 'line')}")
        note.unlink(missing_ok=True)


def _note(made: Path) -> Path:
    return made.with_name(f".{made.name}.of-map.json")


def _begun(made: Path) -> list[str]:
    """Files that a process was at which was killed."""
    from geomoe.files import read_small

    with suppress(GeomoeError, OSError, ValueError):
        found = json.loads(read_small(_note(made)))
        return [str(path) for path in found] if isinstance(found, list) else []
    return []
