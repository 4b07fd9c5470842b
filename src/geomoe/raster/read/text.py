"""Metadata written by others, as XML or JSON: bounded, without entities, and of one kind of error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from geomoe.errors import GeomoeError

__all__ = ["children", "elements", "finite", "read_json", "read_xml", "unquoted"]


def read_xml(name: str, content: bytes) -> ElementTree.Element:
    """The root of an XML document in UTF-8.

    Raises:
        GeomoeError: if it is no XML, or declares a document type: entities can stand for other files, and
            for gigabytes.
    """
    try:
        # As text, so that no other encoding can hide a declaration from the look at it.
        text = content.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise GeomoeError(
                f"{name} declares a document type or entities; expected plain XML, download it again"
            )
        return ElementTree.fromstring(text)
    except (ValueError, ElementTree.ParseError, RecursionError) as error:
        raise GeomoeError(f"{name} is not XML in UTF-8: {_line(error)}; download it again") from error


def elements(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements of this name anywhere below, in whatever namespace.

    Not to be called for each of many elements: where one lies in another, time goes by their square.
    """
    return _named(root.iter(), name)


def children(parent: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements of this name right below, in whatever namespace."""
    return _named(parent, name)


def _named(given: Iterable[ElementTree.Element], name: str) -> Iterator[ElementTree.Element]:
    for element in given:
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2] == name:
            yield element


def read_json(name: str, content: bytes) -> dict[str, Any]:
    """A JSON object; raises GeomoeError for anything else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GeomoeError(f"{name} is not JSON: {_line(error)}; download it again") from error
    if not isinstance(found, dict):
        raise GeomoeError(f"{name} holds a {type(found).__name__}; expected a JSON object")
    return found


def finite(value: object) -> float | None:
    """A number as such, or as text; ``None`` for anything else, infinity and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def unquoted(reference: str) -> str:
    """The path that a reference stands for, as a URL quotes it; bytes that are no text as `os` has them."""
    return unquote(reference, errors="surrogateescape")


def _line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
