"""STAC collections and catalogs on disk, as lists of items."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.files import read_small
from geomoe.raster.read.checks import local_file
from geomoe.raster.read.text import read_json
from geomoe.raster.stac.links import local_href

__all__ = ["MAX_ITEMS", "read_collection"]

MAX_ITEMS = 100_000
"""Of a collection, or scenes of any list."""
# An id becomes part of a file's name.
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")


def read_collection(path: Path) -> list[tuple[str, Path]]:
    """Ids and paths of the items that a collection links to, in its order.

    Args:
        path: of the JSON file of a collection or catalog; links of ``rel`` ``item`` count, those to other
            catalogs are not followed.

    Raises:
        GeomoeError: if it is neither, or an item is not on this machine or has no id that can name a file.
    """
    collection = read_json(path.name, read_small(path))
    links = collection.get("links")
    if collection.get("type") not in ("Collection", "Catalog") or not isinstance(links, list):
        raise GeomoeError(f"{path} is not a STAC collection; expected type Collection and a list of links")
    hrefs = [link.get("href") for link in links if isinstance(link, dict) and link.get("rel") == "item"]
    if len(hrefs) > MAX_ITEMS:
        raise GeomoeError(f"{path} links to {len(hrefs)} items, more than {MAX_ITEMS}; split it")
    return [_item(path, href) for href in hrefs]


def _item(path: Path, href: object) -> tuple[str, Path]:
    place = local_href(path, href) if isinstance(href, str) else None
    if place is None:
        raise GeomoeError(
            f"{path.name} links to {str(href)[:120]!r}, which is not a local file; download the items"
        )
    local = local_file(place)
    item: dict[str, Any] = read_json(local.name, read_small(local))
    found = item.get("id")
    if item.get("type") != "Feature" or not isinstance(found, str) or not _ID.fullmatch(found):
        raise GeomoeError(f"{local} is not a STAC item whose id can name a file (letters, digits, . _ -)")
    return found, local
