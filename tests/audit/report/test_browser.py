"""A report in a browser: all of it is there, on a phone, on a desktop and on paper."""

import shutil

import pytest

from geomoe.audit.report import write_report
from tests.audit.report.made import made

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.filterwarnings("ignore:Glyph"),
]

_CONTRAST = """() => {
  const channels = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => {
    const [r, g, b] = channels(c).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor, parts = channels(c);
      if (parts.length < 4 || parts[3] === 1) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  for (let text; text = texts.nextNode();) {
    if (!text.data.trim()) continue;
    const [a, b] = [getComputedStyle(text.parentElement).color, behind(text.parentElement)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([text.data.trim().slice(0, 40), ratio]);
  }
  return poor;
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as of:
        found = of.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(made(), tmp_path_factory.mktemp("report") / "report")


@pytest.fixture(params=[(390, 844, "light"), (1280, 900, "light"), (1280, 900, "dark")], ids=str)
def page(request, browser, report):
    """The page, and what it said and asked for."""
    width, height, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(report.as_uri())
    yield page, [what for what in heard if not what.startswith("data:")]
    page.close()


def test_it_asks_for_nothing_and_complains_of_nothing(page, report):
    assert page[1] == [report.as_uri()]


def test_every_figure_is_drawn(page):
    sizes = page[0].eval_on_selector_all(
        "img", "found => found.map(img => [img.complete, img.naturalWidth, img.clientWidth])"
    )
    assert len(sizes) == 2
    for complete, natural, shown in sizes:
        assert complete
        assert natural > 200
        assert shown > 200


def test_it_is_as_wide_as_the_window_and_wide_tables_scroll_in_their_box(page):
    page = page[0]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = page.eval_on_selector_all(".scroll", "all => all.map(e => e.scrollWidth > e.clientWidth)")
    assert any(boxes), "the made table of 18 columns"
    out = page.evaluate(
        "[...document.querySelectorAll('p, h1, h2, h3, li, figcaption, dd')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).length"
    )
    assert out == 0


def test_all_text_has_the_contrast_of_wcag_aa(page):
    assert page[0].evaluate(_CONTRAST) == []


def test_it_prints(page):
    pdf = page[0].pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    page[0].emulate_media(media="print")
    page[0].set_viewport_size({"width": 700, "height": 900})  # about what A4 leaves between margins
    assert page[0].evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page[0].evaluate(_CONTRAST) == []
