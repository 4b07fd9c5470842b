"""Examples in the documentation run as they stand."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_examples_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "example"})


def test_a_router_of_ones_own_takes_twenty_lines():
    text = (DOCS / "core" / "your_own_router.md").read_text()
    first = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in first[1].splitlines() if line.strip()]) <= 20
