"""Whatever a file holds, reading it ends in a result or in our one error, in one line."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import get_origin, get_type_hints

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from geomoe.errors import GeomoeError
from geomoe.models.weights import Card, read_card
from geomoe.pipeline import Request, read_manifest
from geomoe.raster.read.jpeg2000 import check_boxes

_FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _outcome(read: Callable[[], object]) -> object:
    """What was read; ``None`` after our error. Any other one fails the test."""
    try:
        return read()
    except GeomoeError as error:
        message = str(error)
    assert "\n" not in message
    return None


_BOX = st.tuples(
    st.sampled_from([0, 1, 7, 8, 12, 20, 2**32 - 1]) | st.integers(0, 40),
    st.sampled_from([b"jP  ", b"ftyp", b"jp2h", b"asoc", b"colr", b"jp2c", b"res "]),
    st.binary(max_size=12),
)


@_FEW
@given(st.lists(_BOX, max_size=6), st.binary(max_size=20))
def test_boxes_of_a_jpeg_2000(tmp_path: Path, boxes: list[tuple[int, bytes, bytes]], rest: bytes) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(b"".join(struct.pack(">I4s", *box[:2]) + box[2] for box in boxes) + rest)
    _outcome(lambda: check_boxes(path))


@_FEW
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from([b"", b"src,dst\n"]))
def test_lists_of_scenes(tmp_path: Path, content: bytes, header: bytes) -> None:
    (tmp_path / "scenes.csv").write_bytes(header + content)
    found = _outcome(lambda: read_manifest(tmp_path / "scenes.csv"))
    if found is not None:
        assert isinstance(found, list)
        assert found
        assert all(isinstance(task, Request) and task.src and task.dst for task in found)


_HREF = st.sampled_from(["a.json", "./%61.json", "%00", "%2Fvsimem/a", "%zz", "..", "\ud800.json", "\n.json"])
_LINK = st.fixed_dictionaries({"rel": st.just("item"), "href": _HREF | _ANY})


@_FEW
@given(_ANY | st.lists(_LINK | _ANY, max_size=2), st.sampled_from(["Collection", "Catalog", "Feature"]))
def test_lists_of_items(tmp_path: Path, links: object, kind: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"type": "Feature", "id": "a"}))
    (tmp_path / "all.json").write_text(json.dumps({"type": kind, "links": links}))
    found = _outcome(lambda: read_manifest(tmp_path / "all.json"))
    assert found in (None, [Request(str(tmp_path / "a.json"), str(tmp_path / "a_x4.tif"))])


_FIELDS = [name for name in Card.__dataclass_fields__ if name != "hash"]
_KINDS = {name: get_origin(kind) or kind for name, kind in get_type_hints(Card).items() if name in _FIELDS}
_RIGHT = {str: st.text(max_size=8), dict: st.dictionaries(st.text(max_size=8), _ANY, max_size=3)}


@_FEW
@given(st.dictionaries(st.sampled_from([*_FIELDS, "hash", "other"]), _ANY) | _ANY)
def test_cards_of_weights(tmp_path: Path, card: object) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1)}, path, {"geomoe": json.dumps(card)})
    _outcome(lambda: read_card(path))


_OBJECTS = ("data", "recipe", "scores")
_TEXTS = ("degradation", "protocol", "commit", "date", "licence")


@_FEW
@given(
    st.fixed_dictionaries(
        {name: st.dictionaries(st.text(max_size=8), _ANY, max_size=3) for name in _OBJECTS}
        | {name: st.text(max_size=8) for name in _TEXTS}
    )
)
def test_cards_that_have_all_fields(tmp_path: Path, rest: dict[str, object]) -> None:
    path = tmp_path / "w.safetensors"
    card = {**rest, "model": "edsr", "config": {"scale": 2}, "radiometry": "unit"}
    save_file({"a": torch.ones(1)}, path, {"geomoe": json.dumps(card)})
    right = all(isinstance(card[name], _KINDS[name]) for name in rest)
    assert (_outcome(lambda: read_card(path)) is not None) == right


@_FEW
@given(st.fixed_dictionaries({name: _RIGHT[kind] for name, kind in _KINDS.items() if kind in _RIGHT}))
def test_cards_whose_fields_are_of_their_kind(tmp_path: Path, rest: dict[str, object]) -> None:
    path = tmp_path / "w.safetensors"
    card = {
        **rest,
        "model": "edsr",
        "config": {"scale": 2},
        "radiometry": "unit",
        "reference": {},
        "measured": [],
    }
    save_file({"a": torch.ones(1)}, path, {"geomoe": json.dumps(card)})
    assert _outcome(lambda: read_card(path)) is not None


@pytest.mark.parametrize("card", ["", "[" * 100_000, '{"model": ' * 50_000, "null", "9" * 5000])
def test_cards_that_are_no_card(tmp_path: Path, card: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1)}, path, {"geomoe": card})
    assert _outcome(lambda: read_card(path)) is None
