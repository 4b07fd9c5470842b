"""How much memory control groups leave to this process, as containers and batch systems set it (Linux)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["memory_left"]


@dataclass(frozen=True)
class _Version:
    """Files in the folder of a group, and lines of its statistics that count what files take."""

    limit: str
    used: str
    files: tuple[str, ...]


_FIRST = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)
_SECOND = _Version("memory.max", "memory.current", ("active_file", "inactive_file"))


def memory_left(process: Path = Path("/proc/self")) -> int | None:
    """Bytes that the narrowest of its groups and of those above them leaves, ``None`` where none has a limit.

    What files take of a group's memory counts as free: the system forgets them when it is wanted.

    Args:
        process: folder of the process in ``/proc``.
    """
    left: list[int] = []
    with suppress(OSError, ValueError):
        for version, mount, group in _groups(process):
            for folder in (group, *group.parents):
                if not folder.is_relative_to(mount):
                    break
                with suppress(OSError, ValueError):  # the second for "max": no limit
                    left.append(_left(folder, version))
    return min(left, default=None)


def _left(folder: Path, version: _Version) -> int:
    limit = int((folder / version.limit).read_text())
    used = int((folder / version.used).read_text())
    lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return max(0, limit - used + sum(int(line[1]) for line in lines if line[0] in version.files))


def _groups(process: Path) -> Iterator[tuple[_Version, Path, Path]]:
    """Of both versions, which may be there at once: where its groups are mounted, and the process's own."""
    paths = {}
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            paths[_SECOND if not controllers else _FIRST] = PurePosixPath(path)
    for line in (process / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        version = _SECOND if kind == "cgroup2" else _FIRST
        other = kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and "memory" not in options.split(","))
        if other or version not in paths:
            continue
        own = paths[version]
        # In a container the path may be the host's, of which only a part is mounted.
        inside = own.relative_to(root) if own.is_relative_to(root) else PurePosixPath(own.name)
        group = Path(mount) / inside.relative_to(inside.anchor)
        yield version, Path(mount), group if group.is_dir() else Path(mount)
