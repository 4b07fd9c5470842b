"""The files of a product, in its folder or in a zip of it: none but those inside are ever read or written."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from geomoe.errors import GeomoeError
from geomoe.files import SMALL, read_small

__all__ = ["MAX_FILE_BYTES", "MAX_TOTAL_BYTES", "ProductFiles", "open_folder", "open_zip", "plain_name"]

MAX_FILE_BYTES = 2 * 2**30
MAX_TOTAL_BYTES = 16 * 2**30
"""Of what is unpacked. A band of Sentinel-2 at 10 m has 240 MB uncompressed."""
_MAX_DIRECTORY_BYTES = 4 * 2**20
_CHUNK = 2**20
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip


class ProductFiles(Protocol):
    """Files by their names inside the product, which are relative and have ``/`` between folders."""

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""

    def size(self, name: str) -> int:
        """Bytes that it has."""

    def content(self, name: str) -> bytes:
        """All of a small one, of at most 8 MiB."""

    def place(self, name: str) -> Path:
        """Where it can be opened."""


def plain_name(product: str, name: str) -> str:
    """The name of a file inside a product; raises GeomoeError where it may lead out of it."""
    name = name.strip().removeprefix("./")
    parts = PurePosixPath(name).parts
    if not name or not name.isprintable() or "\\" in name or ":" in name or name[0] == "/" or ".." in parts:
        raise GeomoeError(f"{product} names a file {name[:80]!r}, which is not inside it; download it again")
    return name


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def holds(self, name: str) -> bool:
        return os.path.isfile(self._root / name)

    def size(self, name: str) -> int:
        return self.place(name).stat().st_size

    def content(self, name: str) -> bytes:
        return read_small(self.place(name))

    def place(self, name: str) -> Path:
        path = self._root / plain_name(self._root.name, name)
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise GeomoeError(f"{self._root.name} has no {name}; download the whole product") from None
        if not real.is_relative_to(self._root.resolve()):
            raise GeomoeError(
                f"{name} of {self._root.name} is a link to elsewhere; put the file itself there"
            )
        if not real.is_file():
            raise GeomoeError(f"{name} of {self._root.name} is not a regular file; download it again")
        return path


@contextmanager
def open_folder(root: Path) -> Iterator[ProductFiles]:
    """The files of an unpacked product."""
    yield _Folder(root)


class _Zip:
    def __init__(self, path: Path, archive: zipfile.ZipFile, prefix: str, folder: Path) -> None:
        self._path, self._archive, self._prefix, self._folder = path, archive, prefix, folder
        self._placed: dict[str, Path] = {}
        self._left = MAX_TOTAL_BYTES

    def holds(self, name: str) -> bool:
        return self._prefix + name in self._archive.NameToInfo

    def size(self, name: str) -> int:
        return self._member(name).file_size

    def content(self, name: str) -> bytes:
        member = self._member(name)
        if member.file_size > SMALL:
            raise GeomoeError(
                f"{name} of {self._path.name} is larger than {SMALL >> 20} MiB; expected metadata"
            )
        with self._errors(name), self._archive.open(member) as file:
            return file.read(SMALL)

    def place(self, name: str) -> Path:
        """Unpacks it under a name of our own: what the archive calls it cannot lead anywhere."""
        if name not in self._placed:
            member = self._member(name)
            self._check_room(member.file_size, name)
            target = self._folder / f"{len(self._placed)}_{PurePosixPath(name).name}"
            with self._errors(name), self._archive.open(member) as packed, target.open("xb") as file:
                self._unpack(packed, file, member.file_size)
            self._placed[name] = target
        return self._placed[name]

    def _member(self, name: str) -> zipfile.ZipInfo:
        plain_name(self._path.name, self._prefix + name)
        member = self._archive.NameToInfo.get(self._prefix + name)
        if member is None:
            raise GeomoeError(f"{self._path.name} has no {name}; download the whole product")
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or member.is_dir():
            raise GeomoeError(f"{name} of {self._path.name} is a link, not a file; download it again")
        if member.flag_bits & 1:
            raise GeomoeError(f"{self._path.name} is encrypted; unpack it, and give the folder")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise GeomoeError(f"{self._path.name} is packed in a rare way; unpack it, and give the folder")
        return member

    def _check_room(self, size: int, name: str) -> None:
        self._left -= size
        if size > MAX_FILE_BYTES or self._left < 0:
            raise GeomoeError(
                f"{name} of {self._path.name} unpacks to {size} bytes, more than a band; download it again"
            )
        free = shutil.disk_usage(self._folder).free
        if size > free:
            raise GeomoeError(
                f"{self._path.name} needs {size} bytes in {self._folder.parent} to be unpacked, {free} are "
                "free; make room, or set TMPDIR to a folder on another disk"
            )

    def _unpack(self, packed: IO[bytes], file: IO[bytes], size: int) -> None:
        """Copies what was declared; that it is all, and right, its CRC tells at the end."""
        while chunk := packed.read(_CHUNK):
            size -= len(chunk)
            if size < 0:
                raise zipfile.BadZipFile("it unpacks to more than it declares")
            file.write(chunk)
        if size:
            raise zipfile.BadZipFile("it unpacks to less than it declares")

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except _ZIP_ERRORS as error:
            raise _unreadable(self._path, f"{name}: {error}") from error


def _unreadable(path: Path, why: object) -> GeomoeError:
    return GeomoeError(
        f"{path.name} cannot be unpacked: {' '.join(str(why).split())[:200]}; download it again"
    )


@contextmanager
def open_zip(path: Path, metadata: tuple[str, ...]) -> Iterator[ProductFiles]:
    """The files of a product in a zip, unpacked one by one into a temporary folder as they are wanted.

    Args:
        path: of the zip.
        metadata: names of which one must be at the top of the product, which is a folder of the zip or all
            of it.

    Raises:
        GeomoeError: if it is no zip, or holds no product or several.
    """
    try:
        _check_directory(path)
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise _unreadable(path, error) from error
    with archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise GeomoeError(f"{path.name} holds two files of one name; download it again")
        tops = {name[: -len(end)] for name in names for end in metadata if name.endswith(end)}
        tops = {top for top in tops if top == "" or (top.endswith("/") and top.count("/") == 1)}
        if len(tops) != 1:
            found = "no product" if not tops else f"{len(tops)} products"
            raise GeomoeError(
                f"{path.name} holds {found}; expected one {' or '.join(metadata)} at the top or in a folder"
            )
        try:
            folder = tempfile.TemporaryDirectory(prefix="geomoe-", ignore_cleanup_errors=True)
        except OSError as error:
            raise GeomoeError(f"no temporary folder can be made: {error.strerror}; set TMPDIR") from error
        with folder as name:
            yield _Zip(path, archive, tops.pop(), Path(name))


def _check_directory(path: Path) -> None:
    """Refuses a list of members that is itself a bomb: Python reads all of it at once."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16 - 22 - 76))  # of its end records, and the longest comment
        tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + 22 > len(tail):
        raise zipfile.BadZipFile("it is not a zip, or cut short")
    length = struct.unpack_from("<I", tail, found + 12)[0]
    # Before it may be two records of an archive of more than 4 GiB: Python goes by them, whatever it says.
    large = tail[max(0, found - 76) : found]
    if len(large) == 76 and large.startswith(b"PK\x06\x06") and large.startswith(b"PK\x06\x07", 56):
        length = struct.unpack_from("<Q", large, 40)[0]
    if length > _MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile("its list of files is too long for a product")
