"""docs/architecture.md and CONTRIBUTING.md tell of the house that there is."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
LINKS = sorted({link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link})
NAMES = sorted(set(re.findall(r"`(geomoe(?:\.\w+)+)`", PAGE + CONTRIBUTING)))
CLASSES = sorted(set(re.findall(r"`([A-Z]\w*[a-z]\w*)`", CONTRIBUTING)))
FILES = sorted(set(re.findall(r"`((?:tests|docs|models|src)/[\w/]*(?:\.\w+)?)`", CONTRIBUTING)))
WITHOUT_RASTERIO = ("data", "tasks", "models", "layers", "metrics")


def reached(room, arrows):
    """Rooms that may be imported from ``room``, along any number of arrows."""
    found, ahead = set(), [room]
    while ahead:
        new = [target for source, target in arrows if source == ahead[0] and target not in found]
        found.update(new)
        ahead = ahead[1:] + new
    return found


@pytest.mark.parametrize("link", LINKS)
def test_the_files_that_it_names_are_there(link):
    assert (ROOT / "docs" / link).resolve().exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_it_names_are_there(name):
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            found = getattr(found, part)
        return
    pytest.fail(f"there is no {name}")


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_defined_somewhere(name):
    defined = re.compile(rf"^class {name}\b", re.MULTILINE)
    assert any(defined.search(path.read_text()) for path in (ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("name", FILES)
def test_files_of_which_contributors_are_told_are_there(name):
    assert any((folder / name).exists() for folder in (ROOT, ROOT / "src" / "geomoe"))


def test_every_way_to_add_something_names_a_file_and_a_registration():
    table = PAGE.partition("## Where do I add")[2].partition("Networks share")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("|")][2:]
    kinds = [row[0].strip() for row in rows]
    assert {"router", "expert bank", "task", "metric", "layer of maps"} <= set(kinds)
    for row in rows:
        assert len(row) == 4
        assert "`" in row[2] or "](" in row[2], row[0]


def test_the_figure_has_the_rooms_and_contracts_that_there_are():
    figure = re.search(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)[1]
    rooms = {path.parent.name for path in (ROOT / "src" / "geomoe").glob("*/__init__.py")} - {"configs"}
    assert set(re.findall(r"<b>(\w+)</b>", figure)) == rooms
    arrows = set()
    for source, target in re.findall(r"^ *([\w &]+) --> ([\w &]+)$", figure, re.MULTILINE):
        arrows |= {(a.strip(), b.strip()) for a in source.split("&") for b in target.split("&")}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = (c["layers"] for c in contracts if c["name"] == "Rooms import from the rooms below them")
    floors = [{room.strip().removeprefix("geomoe.") for room in floor.split("|")} & rooms for floor in floors]
    for number, floor in enumerate(floors):
        below = set().union(*floors[number + 1 :])
        for room in floor:
            assert reached(room, arrows) & rooms == below, room


def test_words_of_super_resolution_are_in_its_rooms_and_among_metrics():
    words = re.compile("p[s]nr|bi[c]ubic|Super[R]esolution")  # as this file is searched too
    found = [
        path.relative_to(ROOT)
        for folder in ("src", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".csv", ".json")
        if words.search(path.read_text())
    ]
    assert found, "nothing was searched"
    elsewhere = [path for path in found if not re.search(r"super_resolution|/metrics/", str(path))]
    assert elsewhere == []


def test_scripts_of_which_the_documentation_tells_are_there():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    named = {
        name for page in pages for name in re.findall(r"\bbenchmarks/[\w/]+\.(?:py|csv)", page.read_text())
    }
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_pictures_train_where_rasterio_is_not():
    files = [path for room in WITHOUT_RASTERIO for path in (ROOT / "src" / "geomoe" / room).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in files}
    wanted = sorted(names - {"geomoe.data.rasters", "geomoe.data.super_resolution.raster_pairs"})
    assert len(wanted) > 100
    program = f"""
import sys
sys.modules["rasterio"] = sys.modules["affine"] = None
for name in {wanted!r}:
    __import__(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
