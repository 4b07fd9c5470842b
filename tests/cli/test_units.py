"""Sizes and times on the command line."""

import click
import pytest

from geomoe.cli.units import Bytes, in_time


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("512MiB", 2**29), ("1.5g", 1_500_000_000), ("700 kb", 700_000), ("12B", 12)],
)
def test_sizes_as_people_write_them(text, count):
    assert Bytes().convert(text, None, None) == count


@pytest.mark.parametrize("text", ["4", "1.5", " 800 "])
def test_a_size_without_a_unit_is_not_taken_for_bytes(text):
    with pytest.raises(click.BadParameter, match=rf"has no unit, and would be bytes; say {text.strip()}G "):
        Bytes().convert(text, None, None)


@pytest.mark.parametrize("text", ["4XB", "", "GB", "-1GB", "0", "1e9GB"])
def test_what_is_no_size(text):
    with pytest.raises(click.BadParameter, match="expected one such as 4GB"):
        Bytes().convert(text, None, None)


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (80, "80 s"), (700, "12 min"), (9000, "2.5 h")])
def test_times_as_people_read_them(seconds, said):
    assert in_time(seconds) == said
