"""Links of an item to files: relative ones, as they are written and as they are followed."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from geomoe.raster.read.text import unquoted

__all__ = ["file_name", "href", "local_href"]


def href(name: str) -> str:
    """The reference to a file of that name in the folder of the item that makes it."""
    return "./" + quote(os.fsencode(name))


def file_name(reference: object) -> str | None:
    """The name that `href` was given; ``None`` for what does not name a file in the same folder."""
    if not isinstance(reference, str) or not reference.startswith("./"):
        return None
    name = unquoted(reference[2:])
    return None if not name or name in (".", "..") or "/" in name or "\0" in name else name


def local_href(item: Path, href: str) -> Path | None:
    """Where a link of an item leads on this machine's disks; ``None`` for an address or virtual path.

    Some write a path as it is, others quote it, as `href` does: a file of either name
    will do, the first one first.
    """
    places = []
    for text in (href, unquoted(href)):
        if "://" in text or "\0" in text or text.startswith("/vsi"):
            return None
        places.append(Path(os.path.normpath(item.parent / text)))
    return next((place for place in places if os.path.exists(place)), places[0])
