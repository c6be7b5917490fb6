"""The ledger in a real browser, driven by Playwright: what a person does, at a phone's width, in the dark, on paper."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
from pathlib import Path

import pytest
from workspace import REPOSITORY

from flows.ledger.page import build

PAGES = (
    "index.html",
    "papers/prefix-images.html",
    "papers/waiting-paper.html",
    "leaderboards.html",
    "leaderboards/image-tokenizer.html",
    "benchmarks.html",
    "history.html",
    "reading.html",
    "source/components.quantizers.vq.html",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def chromium():
    """A headless browser of this machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-test.in)")
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("this machine has no Chromium; what can be read from the HTML is tested in test_pages")
    with sync_api.sync_playwright() as playwright:
        # A container has no user namespaces for the sandbox, and a small /dev/shm.
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(site):
    """The ledger behind a web server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(chromium, address):
    """Open a page in a tab of its own; at the end, no page has complained and nothing was asked of the network."""
    complaints, contexts = [], []

    def open_page(path: str, width: int = 1280, base: str = address, **options):
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a machine that trains beside the tests is slow, not broken
        page.on("console", lambda message: complaints.append(f"{path}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"{path}: {error}"))
        page.on("requestfailed", lambda request: complaints.append(f"{path}: {request.url} failed"))
        page.on("request", lambda request: _refuse_strangers(request.url, base, complaints))
        page.goto(base + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _refuse_strangers(url: str, base: str, complaints: list[str]) -> None:
    if not url.startswith((base, "data:", "file:")) and not url.endswith("/favicon.ico"):
        complaints.append(f"asked for {url}")


def titles(page) -> list[str]:
    """Titles of the rows that can be seen."""
    rows = page.locator("#papers tbody tr:visible")
    return [rows.nth(index).get_attribute("data-title") for index in range(rows.count())]


def test_the_papers_are_searched_filtered_and_shown_again(visit):
    page = visit("index.html")
    assert len(titles(page)) == 24
    page.get_by_role("combobox", name="Verdict").select_option("inconclusive")
    assert titles(page) == ["Prefix Images"]
    page.get_by_role("combobox", name="Verdict").select_option("")
    page.get_by_label("Search").fill("markov CHAIN")
    assert titles(page) == ["Bias of Tokenized Prompts on a Markov Chain"]
    assert page.get_by_role("status").inner_text() == "1 of 24 papers"
    assert page.url.endswith("#text=markov+CHAIN")
    page.get_by_label("Search").fill("no such paper at all")
    assert page.get_by_text("No paper matches.").is_visible()
    page.get_by_role("button", name="Show all papers").click()
    assert len(titles(page)) == 24
    assert page.evaluate("document.activeElement.id") == "filter-text"
    page.get_by_role("combobox", name="Data").select_option("shapes")
    assert sorted(titles(page)) == ["Another Tokenizer on the Same Images", "Prefix Images"]
    page.get_by_role("combobox", name="Scope").select_option("out of scale")
    assert titles(page) == ["Prefix Images"]


def test_columns_sort_both_ways_and_say_so(visit):
    page = visit("index.html")
    state = lambda key: page.locator(f"th:has(button[data-sort={key}])").get_attribute("aria-sort")  # noqa: E731
    page.get_by_role("button", name="Minutes").click()
    assert titles(page)[0] == "Bias of Tokenized Prompts on a Markov Chain"
    assert state("minutes") == "descending"
    page.get_by_role("button", name="Paper", exact=True).click()
    assert titles(page)[0] == "A Paper Declared but Not Run"
    assert (state("title"), state("minutes")) == ("ascending", "none")
    page.get_by_role("button", name="Paper", exact=True).click()
    assert titles(page)[0] == "Prefix Images"
    assert state("title") == "descending"
    page.get_by_role("button", name="State").click()
    assert titles(page)[0] == "Prefix Images"


def test_a_view_can_be_sent_to_somebody_and_survives_a_reload(visit):
    page = visit("index.html#verdict=inconclusive&sort=-title")
    assert titles(page) == ["Prefix Images"]
    page.reload()
    assert titles(page) == ["Prefix Images"]
    page.get_by_role("link", name="audio", exact=True).click()
    assert set(titles(page)) >= {"A Paper Declared but Not Run"}
    assert page.get_by_role("combobox", name="Family").input_value() == "audio"


def test_it_works_from_disk_too(visit, site):
    page = visit("index.html", base=site.as_uri() + "/")
    page.get_by_role("combobox", name="Family").select_option("audio")
    assert "A Paper Declared but Not Run" in titles(page)
    page.get_by_role("link", name="A Paper Declared but Not Run").click()
    assert page.get_by_role("heading", level=1).inner_text() == "A Paper Declared but Not Run"
    page.get_by_role("link", name="Leaderboards").click()
    assert page.title().startswith("Leaderboards")


def test_a_reader_gets_from_a_paper_to_its_leaderboard_its_code_and_back(visit):
    page = visit("index.html")
    page.locator("#papers").get_by_role("link", name="Prefix Images").click()
    assert "Prefix Images" in page.title()
    page.get_by_role("link", name="Tokenizers on generated scenes").click()
    assert page.url.endswith("leaderboards/image-tokenizer.html#scenes")
    assert page.get_by_role("heading", name="Tokenizers on generated scenes").is_visible()
    page.get_by_role("link", name="tail_drop").first.click()
    assert page.url.endswith("papers/prefix-images.html#arms-shapes-small")
    page.get_by_role("link", name="components/quantizers/vq.py").click()
    assert page.get_by_text("def forward").first.is_visible()
    page.get_by_role("link", name="Tessera", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text().startswith("Tessera")


def test_an_entry_of_a_leaderboard_can_be_made_to_stand_out(visit):
    page = visit("leaderboards/image-tokenizer.html")
    button = page.get_by_role("button", name="rival rival-images")
    other = page.locator(".rate .series:not(.on)").first
    assert float(other.evaluate("element => getComputedStyle(element).opacity")) == 1
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".rate .series.on").count() == 1
    assert float(other.evaluate("element => getComputedStyle(element).opacity")) < 0.5
    page.keyboard.press("Enter")
    assert page.locator(".rate .series.on").count() == 0


def test_everything_can_be_reached_with_the_keyboard_alone(visit):
    page = visit("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "filter-text":
            break
    page.keyboard.type("prefix")
    assert titles(page) == ["Prefix Images"]
    focus = "(e => getComputedStyle(e).outlineStyle)(document.activeElement)"
    assert page.evaluate(focus) != "none"


@pytest.mark.parametrize("path", PAGES)
def test_nothing_sticks_out_at_any_width(visit, path):
    page = visit(path)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    page.evaluate("Promise.all(Array.from(document.images).map(image => (image.loading = 'eager', image.decode())))")
    assert page.evaluate("Array.from(document.images).every(image => image.complete && image.naturalWidth > 0)")
    for width in (380, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "Array.from(document.querySelectorAll('p, td, th, dd, li')).filter(e => e.offsetParent && "
        "parseFloat(getComputedStyle(e).fontSize) < 11).length"
    )
    assert small == 0


def test_nothing_sticks_out_of_the_ledger_of_this_repository(chromium, tmp_path_factory):
    site = tmp_path_factory.mktemp("repository")
    build(REPOSITORY, site)
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    papers = sorted(site.glob("papers/*.html"), key=lambda path: path.stat().st_size, reverse=True)
    for path in (*site.glob("*.html"), *site.glob("leaderboards/*.html"), *papers[:3]):
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        for width in (380, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path.name, width)
        page.set_viewport_size({"width": 760, "height": 800})  # A4
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 760, (path.name, "print")
        page.emulate_media(media="screen")
    page.close()
    assert complaints == []


def test_text_in_drawings_is_text_and_stays_legible_on_a_phone(visit):
    page = visit("leaderboards/image-tokenizer.html", 380)
    heights = page.evaluate(
        "Array.from(document.querySelectorAll('svg.rate text')).map(text => text.getBoundingClientRect())"
        ".map(box => Math.min(box.width, box.height))"
    )
    assert len(heights) > 10
    assert min(heights) >= 9
    assert page.locator("svg.rate text", has_text="psnr (dB)").count() == 1


@pytest.mark.parametrize("path", PAGES)
def test_light_and_dark_differ_and_both_have_contrast(visit, path):
    page, colours = visit(path), {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        style = "getComputedStyle(document.body)"
        paper, ink = page.evaluate(f"[{style}.backgroundColor, {style}.color]")
        colours[scheme] = paper
        assert _contrast(paper, ink) > 7
    assert colours["light"] != colours["dark"]


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_on_paper_there_are_no_controls_and_what_is_folded_away_is_printed(visit, tmp_path):
    page = visit("papers/prefix-images.html")
    page.emulate_media(media="print")
    assert not page.locator("header.bar").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("img").count() == 2
    assert page.locator("img[loading=lazy]").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    page.pdf(path=str(tmp_path / "paper.pdf"), format="A4")
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    front = visit("index.html")
    front.emulate_media(media="print")
    assert not front.locator("#controls").is_visible()
    assert len(titles(front)) == 24


def _axe() -> str:
    package = pytest.importorskip("axe_playwright_python", reason="axe is not installed (requirements-test.in)")
    return (Path(package.__path__[0]) / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_no_accessibility_violation(visit, path):
    page = visit(path, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    page.evaluate(_axe())
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        problems = [
            f"{violation['id']} ({violation['impact']}): {violation['help']}: {violation['nodes'][0]['html'][:200]}"
            for violation in found["violations"]
        ]
        assert problems == [], scheme
        assert len(found["passes"]) > 15
