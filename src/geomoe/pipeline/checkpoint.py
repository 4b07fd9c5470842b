"""A job that outlives its process: what is done is kept, and the next process continues from there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.files import NO_LINKS, atomic_write
from geomoe.pipeline.history import is_model_item, seal
from geomoe.pipeline.output import Output, Piece, read_json, window_of
from geomoe.pipeline.tiles import Tiles
from geomoe.raster.formats.watch import ChangedError
from geomoe.raster.read.classes import category_names
from geomoe.raster.read.env import gdal_env, gdal_errors
from geomoe.raster.stac.item import file_fields, item_bytes
from geomoe.raster.write.cog import REMEDY, write_cog
from geomoe.raster.write.scratch import LayoutError, Scratch, Sums, sums_of
from geomoe.raster.write.target import Target, commit, roll_back

__all__ = ["Work"]


class Work:
    """The tiles of a job that are done, on the disk.

    In a hidden folder beside the first output: ``job.json`` says what is being made of what, ``journal`` has
    a line for every tile that is done with the checksums of its pixels, and beside each output is its scratch
    file. A process that finds a folder of the same job believes no line of the journal whose pixels do not
    have its checksums, does one of its tiles again, and does the rest if that comes out as it was; the bytes
    of the finished files are those of a job that was never interrupted. A folder of another job is emptied,
    and so is one of a machine whose sums are rounded otherwise.

    However a job ends, what is done is kept; only a folder that this process began, and in which no tile was
    done, is removed, and one whose tiles may be of two states of a scene that was changed meanwhile.

    Args:
        outputs: of the job, the main one first.
        key: everything that the pixels depend on, as JSON values.
        tiles: of the job.
        sidecar: makes the item that goes with an output of which the nodata value is known; all of it but
            size and checksum of the file.
        model: name and content of the item about the model, which goes into each folder.
        redo: does a tile.

    Attributes:
        resumed: tiles that were done before.
        note: what was found there, in words; empty if nothing.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        key: Mapping[str, Any],
        tiles: Tiles,
        sidecar: Callable[[Output, float | None], dict[str, Any]],
        model: tuple[str, bytes],
        redo: Callable[[int], Sequence[Piece]],
    ) -> None:
        self._outputs, self._tiles = outputs, tiles
        self._sidecar, self._model, self._redo = sidecar, model, redo
        self._key = json.loads(json.dumps(key))
        self._folder = outputs[0].target.folder
        self._scratches = [Scratch(o.target.folder, o.meta) for o in outputs]
        self._sums = np.zeros((len(tiles), len(outputs), 2), dtype=np.uint32)
        self._done = np.zeros(len(tiles), dtype=np.bool_)
        self._ran = np.zeros(len(tiles), dtype=np.bool_)
        self._holes = False
        self._journal = -1
        self._began = self._made = False
        self.resumed = 0
        self.note = ""
        self._stack = ExitStack()

    @property
    def skipped(self) -> int:
        """Tiles that are done and that the model was not run on."""
        return int((self._done & ~self._ran).sum())

    @property
    def placed(self) -> bool:
        """Whether the files are finished, checked, and perhaps in place already."""
        return self._made or (self._folder / "commit").exists()

    def todo(self, order: Sequence[int]) -> list[int]:
        """The tiles of ``order`` that are not done."""
        return [number for number in order if not self._done[number]]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for output in self._outputs:
                stack.enter_context(output.target.held())
            stack.callback(self._close)
            stack.push(self._leave)
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, number: int, pieces: Sequence[Piece], *, ran: bool) -> None:
        """Keep one tile.

        Args:
            number: of the tile.
            pieces: of its core, for each output.
            ran: whether the model was run on it.

        Raises:
            GeomoeError: if the disk does not take it.
        """
        core = self._tiles[number].core
        for i, (output, scratch, (data, valid)) in enumerate(
            zip(self._outputs, self._scratches, pieces, strict=True)
        ):
            with _writing(output.target.path):
                self._sums[number, i] = scratch.write(window_of(core, output.scale), data, valid)
            self._note_holes(output, data)
        self._done[number], self._ran[number] = True, ran
        sums = " ".join(f"{value:08x}" for value in self._sums[number].ravel())
        with _writing(self._outputs[0].target.path):
            os.write(self._journal, f"{number} {ran:d} {sums}\n".encode())

    def finish(self) -> None:
        """Make, check and place the files, when every tile is done; removes the folder.

        Raises:
            GeomoeError: if a file cannot be written, does not read back, or cannot be placed.
        """
        if not self.placed:
            if not self._done.all():
                raise RuntimeError(f"{int(self._done.sum())} tiles done of {len(self._done)}")
            self._close()
            for i, (output, scratch) in enumerate(zip(self._outputs, self._scratches, strict=True)):
                meta, target = output.meta, output.target
                nodata = float("nan") if meta.nan_nodata and self._holes else meta.nodata
                image, item = target.moves
                with _writing(target.path):
                    said = self._sidecar(output, nodata)
                    tags = {**output.late(), "GEOMOE_ITEM": seal(said)}
                    write_cog(scratch, image.part, self._pieces(i), nodata, target.path.name, tags)
                    said["assets"]["data"] |= file_fields(image.part)
                    _write_whole(item.part, item_bytes(said, target.item.name))
                    if meta.classes:
                        names = category_names({each.value: each.name for each in meta.classes})
                        _write_whole(target.names.part, names)
            with _writing(self._outputs[0].target.path):
                _write_whole(self._folder / "commit", b"")
        if not self._made:
            self._place_model()
            commit([move for output in self._outputs for move in output.moves])
            for output in self._outputs:
                output.target.drop_neighbours(named=bool(output.meta.classes))
        self._clean()

    def _refuse_model(self) -> None:
        """Raise GeomoeError where the place of the model's item is taken by something else."""
        name, _ = self._model
        for output in self._outputs:
            place = output.target.path.with_name(name)
            if place in (output.target.path, output.target.item):
                raise GeomoeError(f"{name} is where the model's item goes; choose another output")
            if os.path.lexists(place) and not is_model_item(place):
                raise GeomoeError(f"{place} is where the model's item goes, and is none; move it away")

    def _place_model(self) -> None:
        """Put the model's item into each folder of outputs, before them: it is true without them."""
        name, item = self._model
        for output in self._outputs:
            place = output.target.path.with_name(name)
            with _writing(place):
                if not place.is_file() or place.read_bytes() != item:
                    _write_whole(place, item, output.target.folder)

    def _begin(self) -> None:
        found = [read_json(o.target.folder / "job.json") for o in self._outputs]
        same = all(job == self._key for job in found)
        # A part that is not there is in place, or was there and somebody took it away.
        if (
            found[0] == self._key
            and self.placed
            and all(m.part.exists() or m.path.exists() for o in self._outputs for m in o.moves)
        ):
            self.note = "the files were finished and only had to be put in place"
            return
        if found[0] is None:  # of a job that had not begun, or had ended and was tidied up
            self._outputs[0].target.clean()
            self._made = all(map(self._stands, self._outputs))
            if self._made:  # cut off while it was tidied up
                self.note = "the files were in place and only had to be tidied up after"
                return
        for output in self._outputs:
            output.target.refuse_what_stands()
        self._refuse_model()
        what = ""
        if same and not self.placed:
            what = self._resume()
            if not what:
                self.note = f"resumes: {self.resumed} of {len(self._done)} tiles were done"
                return
        was = found[0]
        if was is not None:
            changed = sorted(k for k in {*was, *self._key} if was.get(k) != self._key.get(k))
            what = what or (f"another {', '.join(changed)}" if changed else "damaged")
            self.note = f"starts over: what was begun here before is {what}"
            self._give_up(was)
        self._start()

    def _give_up(self, was: Mapping[str, Any]) -> None:
        """Undo and remove what the job that was begun here left at, and beside, its outputs."""
        paths = was.get("outputs")
        targets = []
        for path in paths if isinstance(paths, list) else ():
            with suppress(GeomoeError):
                target = Target(str(path), overwrite=True)
                if read_json(target.folder / "job.json") == was:
                    targets.append(target)
        moves = [move for target in targets for move in target.moves]
        if was.get("kind") == "classes":
            moves += [target.names for target in targets[:1]]
        waiting = [move for move in moves if move.part.exists()]
        if self.placed and waiting:  # cut off while its files were put in place
            roll_back(moves, [move for move in moves if move not in waiting])
        mine = [output.target.path for output in self._outputs]
        for left in targets:
            if left.path not in mine:
                with suppress(GeomoeError), left.held():
                    left.clean()

    def _start(self) -> None:
        self._began = True
        for output in self._outputs:
            output.target.clean()
        for output, scratch in zip(self._outputs, self._scratches, strict=True):
            with _writing(output.target.path), gdal_env():
                scratch.create()
                scratch.open()
        with _writing(self._outputs[0].target.path):
            self._open_journal()
            for output in reversed(self._outputs):
                job = json.dumps(self._key, indent=1, sort_keys=True)
                _write_whole(output.target.folder / "job.json", job.encode())

    def _open_journal(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_LINKS
        self._journal = os.open(self._folder / "journal", flags, 0o666)

    def _stands(self, output: Output) -> bool:
        """Whether the finished file of this very job is at its place, with its item."""
        nodatas = (output.meta.nodata, *([float("nan")] if output.meta.nan_nodata else []))
        try:
            found, now = output.target.item.read_bytes(), file_fields(output.target.path)
        except OSError:
            return False
        for nodata in nodatas:
            said = self._sidecar(output, nodata)
            said["assets"]["data"] |= now
            if item_bytes(said, output.target.item.name) == found:
                return True
        return False

    def _resume(self) -> str:
        """Take over what is there; why that cannot be done, empty if it is."""
        with _writing(self._outputs[0].target.path):
            try:
                with gdal_env():
                    for scratch in self._scratches:
                        scratch.open()
                lines = (self._folder / "journal").read_text(errors="replace").splitlines()
            except (LayoutError, FileNotFoundError, RasterioIOError):
                self._close()
                return "damaged"
            for line in lines:
                self._take_over(line.split())
        if not self._agrees():
            self._close()
            self._done[:] = self._ran[:] = self._holes = False
            return "another arithmetic"
        with _writing(self._outputs[0].target.path):
            self._open_journal()
            os.write(self._journal, b"\n")  # the last line may have been cut
        self.resumed = int(self._done.sum())
        return ""

    def _agrees(self) -> bool:
        """Whether a tile that the model was run on comes out again as it was.

        The device does not tell: ONEDNN_MAX_CPU_ISA, MKL_CBWR, MKL_ENABLE_INSTRUCTIONS, ATEN_CPU_CAPABILITY,
        the libraries that torch was built with and the processor's model all choose how sums are made.
        """
        ran = np.flatnonzero(self._ran)
        if not len(ran):
            return True
        number = int(ran[0])
        return all(
            sums_of(data, np.where(valid, np.uint8(255), np.uint8(0)) if output.meta.mask else None)
            == tuple(sums)
            for output, (data, valid), sums in zip(
                self._outputs, self._redo(number), self._sums[number], strict=True
            )
        )

    def _take_over(self, fields: list[str]) -> None:
        try:
            number, ran = int(fields[0]), bool(int(fields[1]))
            sums = np.array([int(value, 16) for value in fields[2:]], dtype=np.uint32)
            sums = sums.reshape(len(self._outputs), 2)
            core = self._tiles[number].core
        except (ValueError, IndexError, OverflowError):
            return
        for output, scratch, wanted in zip(self._outputs, self._scratches, sums, strict=True):
            data, mask = scratch.read(window_of(core, output.scale))
            if sums_of(data, mask) != tuple(wanted):
                return
            self._note_holes(output, data)
        self._sums[number], self._done[number], self._ran[number] = sums, True, ran

    def _note_holes(self, output: Output, data: NDArray[np.generic]) -> None:
        if output.meta.nan_nodata and not self._holes:
            self._holes = bool(np.isnan(data).any())

    def _pieces(self, output: int) -> Iterator[tuple[Window, Sums]]:
        scale = self._outputs[output].scale
        for tile, (data, mask) in zip(self._tiles, self._sums[:, output], strict=True):
            yield window_of(tile.core, scale), Sums(int(data), int(mask))

    def _close(self) -> None:
        for scratch in self._scratches:
            scratch.close()
        journal, self._journal = self._journal, -1
        if journal >= 0:
            os.close(journal)

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        done = int(self._done.sum())
        if (self._began and not done) or isinstance(error, ChangedError):
            self._close()
            self._clean()
        elif done:
            error.add_note(
                f"{done} of {len(self._done)} tiles are kept in {self._folder}; the same command resumes it"
            )

    def _clean(self) -> None:
        # The first one last: what it says of the job is true until all else is gone.
        for output in reversed(self._outputs):
            output.target.clean()


def _writing(path: Path) -> Any:
    return gdal_errors(f"cannot write {path}", REMEDY)


def _write_whole(path: Path, data: bytes, folder: Path | None = None) -> None:
    with atomic_write(path, folder) as file:
        file.write(data)
