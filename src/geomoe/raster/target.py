"""Where an output goes: checked before the work starts, replaced in one step when it is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from geomoe.errors import GeomoeError

__all__ = ["Target", "check_space", "commit", "in_bytes"]

_SUFFIXES = (".tif", ".tiff")
# Files that GDAL reads with a GeoTIFF; left from an older file, they would speak for the new one.
_NEIGHBOURS = (".aux.xml", ".msk", ".ovr")
LAST = ("job.json", "commit")
"""Files in the folder of the work by which another process knows what is to be done there."""
_MAX_NAME = 255  # bytes, of common file systems


class Target:
    """A path to be written, and the hidden folder beside it where the work on it is kept.

    Args:
        path: of the GeoTIFF to be.
        sources: files that must not be overwritten.
        overwrite: whether a file may stand there already.

    Raises:
        GeomoeError: if something cannot be written there.
    """

    def __init__(self, path: str | os.PathLike[str], sources: Sequence[Path], *, overwrite: bool) -> None:
        text = os.fspath(path)
        if "\0" in text or text.startswith("/vsi") or "://" in text:
            raise GeomoeError(f"{text!r} is not a local path; write to a local file and upload it afterwards")
        # Through a symbolic link, so that the file it names is replaced and not the link.
        self.path = Path(os.path.realpath(text))
        self.overwrite = overwrite
        folder, name = self.path.parent, self.path.name
        if self.path.suffix.lower() not in _SUFFIXES:
            raise GeomoeError(f"{name!r} is no GeoTIFF by its name; end the output's name in .tif")
        if not folder.is_dir():
            raise GeomoeError(f"folder {folder} does not exist; create it first (mkdir -p {folder})")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise GeomoeError(f"folder {folder} is not writable; choose another or change its permissions")
        if self.path.is_dir():
            raise GeomoeError(f"{self.path} is a folder; give the name of a file to write")
        if self.path.exists():
            for source in sources:
                if os.path.samefile(source, self.path):
                    raise GeomoeError(f"{self.path} is the input itself; write to another file")
        self.folder = self.path.with_name(f".{name}.geomoe")
        if len(os.fsencode(self.folder.name)) > _MAX_NAME:
            raise GeomoeError(f"the name {name[:40]}... is too long; choose one under 245 bytes")

    @property
    def part(self) -> Path:
        """Where the finished file waits for `commit`."""
        return self.folder / "part.tif"

    @property
    def backup(self) -> Path:
        """Where `commit` keeps the old file until all new ones are in place."""
        return self.folder / "backup.tif"

    def refuse_what_stands(self) -> None:
        """Raise GeomoeError where a file stands at the path, or speaks for one, and may not be replaced."""
        for file in () if self.overwrite else (self.path, *self._neighbours()):
            if file.exists():
                raise GeomoeError(
                    f"{file} exists already; choose another output or allow it with --overwrite"
                )

    def work_bytes(self) -> int:
        """Bytes on the disk of the work that is kept."""
        total = 0
        with suppress(OSError):
            for entry in os.scandir(self.folder):
                found = entry.stat(follow_symlinks=False)
                total += getattr(found, "st_blocks", 0) * 512
        return total

    def clean(self) -> None:
        """Remove what is in the folder but its lock; what says of which job it is goes last.

        An old file that `commit` had put aside, and for which nothing came, is put back.
        """
        with suppress(OSError):
            if self.backup.exists() and not self.path.exists():
                os.replace(self.backup, self.path)
        with suppress(OSError):
            for name in (*set(os.listdir(self.folder)).difference(LAST, ["lock"]), *LAST):
                with suppress(OSError):
                    (self.folder / name).unlink()

    def drop_neighbours(self) -> None:
        """Remove what other tools kept beside the old file, as it is not true of the new one."""
        for file in self._neighbours():
            file.unlink(missing_ok=True)

    def _neighbours(self) -> tuple[Path, ...]:
        return tuple(self.path.with_name(self.path.name + suffix) for suffix in _NEIGHBOURS)


def check_space(needs: Sequence[tuple[Path, int]]) -> None:
    """Refuse a job whose outputs do not fit on their disks.

    Args:
        needs: for each output, its path and the bytes that it still takes at its peak.

    Raises:
        GeomoeError: with what is needed and what is free.
    """
    by_disk: dict[int, tuple[Path, int]] = {}
    for path, size in needs:
        disk = path.parent.stat().st_dev
        by_disk[disk] = (path.parent, by_disk.get(disk, (path.parent, 0))[1] + size)
    for folder, size in by_disk.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise GeomoeError(
                f"{folder} has {in_bytes(free)} free and the job needs about {in_bytes(size)}; "
                "free some space or write to another disk"
            )


def in_bytes(count: int) -> str:
    """A number of bytes in words, as 1.50 GB or 12.3 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def commit(targets: Sequence[Target]) -> None:
    """Put every finished ``part`` at its path; all of them or, if one fails, none.

    Raises:
        GeomoeError: if a file cannot be replaced; what stood at the targets stands there again.
    """
    done: list[Target] = []
    try:
        for target in targets:
            if target.path.exists():
                if not target.overwrite:
                    raise GeomoeError(f"{target.path} appeared during the work; choose another output")
                if len(targets) > 1:
                    _keep(target)
            os.replace(target.part, target.path)
            done.append(target)
    except (OSError, GeomoeError) as error:
        for target in done:
            target.path.unlink(missing_ok=True)
        for target in targets:
            if target.backup.exists():
                os.replace(target.backup, target.path)
        if isinstance(error, GeomoeError):
            raise
        what = f"cannot put {error.filename} in place: {error.strerror}"
        raise GeomoeError(f"{what}; nothing was changed, check the folder") from error
    for target in targets:
        target.drop_neighbours()
        _sync_folder(target.path.parent)


def _keep(target: Target) -> None:
    try:
        os.link(target.path, target.backup)
    except OSError:  # exFAT and some network file systems have no second names
        os.replace(target.path, target.backup)


def _sync_folder(folder: Path) -> None:
    # Without it a power cut can undo the rename. Some file systems do not allow it.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
