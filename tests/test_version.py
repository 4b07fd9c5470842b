"""One version, wherever it stands."""

import re
from pathlib import Path

import geomoe

ROOT = Path(__file__).parents[1]


def test_the_version_is_one():
    citation = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    changes = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert citation == changes == geomoe.__version__
