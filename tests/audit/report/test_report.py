"""A report holds what the audit found, whatever its names are, with the same bytes each time."""

import hashlib
import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from geomoe import GeomoeError
from geomoe.audit.report import check_folder, write_report
from geomoe.audit.report.cells import columns
from geomoe.audit.report.latex import latex, tex
from geomoe.audit.section import Figure, Table
from tests.audit.report.made import NASTY, made

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "report"
    assert write_report(made(), folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    """Headings, texts and attributes of a page, and that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, name):
        return [found.get(name) for one, found in self.attributes if one == tag]


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text("utf-8"))


def test_the_verdict_stands_first_with_its_level_in_words(page):
    said = [text for text in page.texts if text.strip()]
    place = next(i for i, text in enumerate(said) if "is dead" in text)
    assert place < said.index("Contents")
    assert "fault" in said[place - 1]
    assert ("div", {"class": "verdict fault", "id": "verdict"}) in page.attributes


def test_headings_are_in_order_and_figures_have_texts(page):
    assert page.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.all("img", "alt")) == 2
    assert all(page.all("img", "alt"))
    ids = [found["id"] for _, found in page.attributes if "id" in found]
    assert len(ids) == len(set(ids))
    assert {f"#{i}" for i in ids} >= set(page.all("a", "href"))


def test_nothing_is_loaded_and_no_script_is_there(page):
    tags = {tag for tag, _ in page.attributes}
    assert not tags & {"script", "iframe", "object", "embed", "form"}
    assert all(source.startswith("data:image/") for source in page.all("img", "src"))
    assert page.all("link", "href") == ["data:,"]
    [style] = [text for text in page.texts if ":root" in text]
    assert "url(" not in style
    assert "@import" not in style


def test_names_stay_names(report, page):
    shown = NASTY.replace("\x1b", "?")
    assert any(shown in text for text in page.texts)
    assert "\x1b" not in (report / "report.html").read_text("utf-8")
    for path in (report / "figures").glob("*.svg"):
        ElementTree.fromstring(path.read_bytes())


def test_each_figure_is_a_file_and_says_what_draws_it(report, page):
    assert {path.name for path in (report / "figures").iterdir()} == {
        "bars.svg", "bars.png", "maps.svg", "maps.png",
    }  # fmt: skip
    with Image.open(report / "figures" / "maps.png") as image:
        assert image.size == (9 * 160, 3 * 160)
    said = "geomoe audit 'weights <x>.safetensors' --data /data/a --out report --only usage"
    assert sum(said in text for text in page.texts) == 2


def test_json_has_the_same_and_no_nan(report):
    def refuse(name):
        raise AssertionError(name)

    found = json.loads((report / "audit.json").read_text("utf-8"), parse_constant=refuse)
    assert found["verdict"]["code"] == "dead_expert"
    assert found["sections"][0]["data"] == {"load": [0.25, None, None], "name": NASTY}
    manifest = json.loads((report / "manifest.json").read_text("utf-8"))
    digest = hashlib.sha256((report / "audit.json").read_bytes()).hexdigest()
    assert manifest == {**found["manifest"], "results": {"file": "audit.json", "sha256": digest}}


def test_the_same_audit_gives_the_same_bytes(report, tmp_path):
    write_report(made(), tmp_path / "again")
    files = sorted(path.relative_to(report) for path in report.rglob("*") if path.is_file())
    assert len(files) == 9
    for path in files:
        assert (tmp_path / "again" / path).read_bytes() == (report / path).read_bytes(), path


def test_a_figure_that_fails_leaves_the_earlier_report(tmp_path):
    folder, audit = tmp_path / "report", made(level="sound")
    plain = replace(audit.sections[0], figures=())  # which take most of the time
    write_report(replace(made(), sections=(plain,)), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def broken(drawing):
        raise ValueError("no")

    first = replace(plain, figures=(Figure("broken", "Broken.", broken),))
    with pytest.raises(ValueError, match="no"):
        write_report(replace(audit, sections=(first,)), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [folder]
    write_report(replace(audit, sections=(plain,)), folder)
    assert "verdict sound" in (folder / "report.html").read_text("utf-8")
    assert list(tmp_path.iterdir()) == [folder]


def test_other_folders_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GeomoeError, match="no folder"):
        check_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(GeomoeError, match="holds file, which"):
        check_folder(tmp_path, overwrite=True)
    check_folder(tmp_path / "a" / "new", overwrite=False)
    (tmp_path / "report").mkdir()
    check_folder(tmp_path / "report", overwrite=False)
    (tmp_path / "report" / "audit.json").write_text("{}")
    with pytest.raises(GeomoeError, match="--overwrite"):
        check_folder(tmp_path / "report", overwrite=False)
    check_folder(tmp_path / "report", overwrite=True)


def texts(*cells):
    [column] = columns(Table("t", "", ("c",), tuple((cell,) for cell in cells)))
    return column.texts


def test_numbers_of_a_column_have_the_same_digits():
    assert texts(0.5, 0.123456, None) == ["0.5000", "0.1235", "–"]
    assert texts(30.12345, -1.0) == ["30.12", "−1.00"]
    assert texts(0.012345, 0.5) == ["0.0123", "0.5000"]
    assert texts(0.00123456, -0.001) == ["0.0012", "−0.0010"]
    assert texts("-1.5 (-2 to -1)", "a-1") == ["−1.5 (−2 to −1)", "a-1"]
    assert texts(1512, 3) == ["1,512", "3"]
    assert texts(64.0, 2.0) == ["64", "2"]
    assert texts(float("nan"), float("inf"), "") == ["–", "∞", "–"]


def test_numbers_too_far_apart_have_digits_of_their_own():
    assert texts(1234567.0, 0.25) == ["1,234,567", "0.2500"]
    assert texts(7e-9, 0.0) == ["7.00e−09", "0"]
    assert texts(0.9, 0.0000123) == ["0.9000", "1.23e−05"]


def test_columns_of_numbers_are_known():
    table = Table("t", "", ("a", "b", "c"), (("x", 1, None), ("y", 2.5, None)))
    assert [column.numeric for column in columns(table)] == [False, True, False]


def test_latex_says_names_as_they_are():
    assert tex("a_b & 5 % ~^\\ {x} $1 #2 <3") == (
        r"a\_b \& 5 \% \textasciitilde{}\textasciicircum{}\textbackslash{} \{x\} \$1 \#2 $<$3"
    )
    found = latex(Table("t", "Of A_1.", ("layer", "load"), (("b_1", -0.5),)))
    assert r"\begin{tabular}{lr}" in found
    assert r"b\_1 & $-$0.5000 \\" in found
    assert r"\label{tab:t}" in found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_is_set(report, tmp_path):
    inputs = "".join(rf"\input{{{path}}}" for path in sorted((report / "tables").glob("*.tex")))
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}"
    (tmp_path / "paper.tex").write_text(rf"{head}\begin{{document}}{inputs}\end{{document}}")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_an_audit_without_a_manifest_has_a_report(tmp_path):
    page = Page(write_report(made(manifest={}), tmp_path / "report").read_text("utf-8"))
    assert not any("done again" in text for text in page.texts)
