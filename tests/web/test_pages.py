"""The ledger's pages, read as a browser without a network would read them."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from flows.ledger.page import build

SCHEMAS = Path(__file__).parents[2] / "params" / "schema"
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Elements of a page with their attributes and text, refusing wrong nesting."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def pages(site):
    """Every page of the ledger by its path below the site."""
    return {str(path.relative_to(site)): Page(path) for path in sorted(site.rglob("*.html"))}


def test_there_is_a_front_page_and_one_page_for_each_declared_paper(pages):
    assert sorted(pages) == [
        "index.html",
        "papers/chain-bias.html",
        "papers/prefix-images.html",
        "papers/waiting-paper.html",
    ]


def test_nothing_is_loaded_from_outside_the_page(pages):
    for page in pages.values():
        for _, attributes in page.elements:
            for name in ("href", "src", "action", "srcset", "data", "poster", "xlink:href"):
                target = attributes.get(name, "")
                assert not re.match(r"(?i)\s*([a-z]+:)?//|https?:", target), target
        assert not page.all("iframe")
        assert all("src" not in script for script in page.all("script"))
    for page in pages.values():
        (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
        assert policy.startswith("default-src 'none'")
        assert "script-src 'sha256-" in policy


def test_style_sheets_load_nothing_either(site):
    for path in site.rglob("*.html"):
        style = path.read_text().partition("<style>")[2].partition("</style>")[0]
        assert style.strip()
        assert "url(" not in style
        assert "@import" not in style


def test_every_link_inside_the_ledger_leads_somewhere(pages, site):
    for name, page in pages.items():
        ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        for tag, attributes in page.elements:
            target = attributes.get("href", "")
            if tag == "link" or not target:
                continue
            path, _, fragment = target.partition("#")
            if path:
                assert (site / name).parent.joinpath(path).resolve().is_file(), (name, target)
            else:
                assert fragment in ids, (name, target)


def test_ids_are_unique_and_labels_point_at_them(pages):
    for name, page in pages.items():
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids)), name
        for _, attributes in page.elements:
            if "aria-labelledby" in attributes:
                assert attributes["aria-labelledby"] in ids


def test_every_figure_has_a_caption_and_every_picture_a_text_alternative(pages):
    page = pages["papers/prefix-images.html"]
    figures, captions = page.all("figure"), page.all("figcaption")
    assert len(figures) == len(captions) >= 2
    assert all(
        image["alt"].strip() and image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img")
    )
    assert {image["alt"] for image in page.all("img")} == {
        "Line chart: Quality over tokens kept.",
        "Line chart: Contribution by position.",
    }
    drawings = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(drawings) > 10
    assert all(svg["aria-label"].strip() for svg in drawings)
    assert all(svg.get("role") == "img" or svg.get("aria-hidden") == "true" for svg in page.all("svg"))


def test_text_from_declarations_is_escaped(site):
    page = (site / "papers" / "prefix-images.html").read_text()
    assert "Prefix Decodes &lt;em&gt;&amp; Its Limits&lt;/em&gt;" in page
    assert "<em>&" not in page


def test_the_front_page_counts_verdicts_and_lists_every_paper_of_the_catalogue(pages, site):
    page = pages["index.html"]
    ledger = json.loads((site / "ledger.json").read_text())
    rows = [row for row in page.all("tr") if "data-title" in row]
    assert len(rows) == len(ledger["papers"]) == 23
    assert sum("not built yet" in row["data-verdicts"] for row in rows) == 20
    assert f"{sum(ledger['counts'].values())} claims judged in 2 of 23 papers" in page.words
    assert ledger["counts"] == {"reproduced": 5, "contradicted": 0, "inconclusive": 1, "out of scale": 1}
    waiting = next(row for row in rows if row["data-title"] == "A Paper Declared but Not Run")
    assert waiting["data-verdicts"] == "not run yet|"


def test_the_front_page_can_be_sorted_filtered_and_used_with_a_keyboard(pages, site):
    page = pages["index.html"]
    keys = {button["data-sort"] for button in page.all("button") if "data-sort" in button}
    assert keys == {"title", "family", "study", "reproduced", "minutes", "state"}
    for row in (row for row in page.all("tr") if "data-title" in row):
        assert {f"data-{key}" for key in keys} <= row.keys()
    labelled = page.all("input") + page.all("select")
    assert {control["id"] for control in labelled} == {
        f"filter-{name}" for name in ("text", "family", "study", "verdict")
    }
    assert "addEventListener" in (site / "index.html").read_text()
    assert next(iter(page.all("a")))["href"] == "#main"


def test_a_papers_page_shows_claims_with_estimates_gates_groups_and_what_is_out_of_scale(pages):
    words = pages["papers/prefix-images.html"].words
    for part in (
        "psnr(tail_drop) − psnr(no_drop) at k=8 > 1.5, on every seed > 2",
        "Gate psnr(no_drop) at k=32 > 17.6, on every seed holds",
        "1,152 bytes photo_psnr(tail_drop)",
        "2 of 3 must hold",
        "Needs ImageNet at 256 pixels, eight accelerators for some days",
        "The bar is the paper's.",
        "One training stage instead of two",
        "git checkout 3f2c9a1b7d5e4f60718293a4b5c6d7e8f9012345 tessera reproduce prefix-images --variant shapes",
        "AMD EPYC 7B13, 2 cores, 8.0 GiB memory",
        "shapes-train-tail_drop-s0",
        "2026-11-24 shapes, reimplemented here",
        "Not run yet: photos",
    ):
        assert part in words, part


def test_the_json_follows_its_published_schema_and_the_schemas_lie_beside_it(site):
    schemas = {name: json.loads((SCHEMAS / f"{name}.schema.json").read_text()) for name in ("ledger", "verdicts")}
    registry = Registry().with_resources(
        [(schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()]
    )
    jsonschema.Draft202012Validator.check_schema(schemas["ledger"])
    validator = jsonschema.Draft202012Validator(schemas["ledger"], registry=registry)
    validator.validate(json.loads((site / "ledger.json").read_text()))
    for name, schema in schemas.items():
        assert json.loads((site / f"{name}.schema.json").read_text()) == schema


def test_building_again_gives_the_same_bytes_and_touches_no_file(workspace, site):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in site.rglob("*.html")}
    assert build(workspace, site) == site / "index.html"
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in site.rglob("*.html")}


def test_pages_of_papers_that_are_gone_are_removed(workspace, tmp_path):
    (tmp_path / "papers").mkdir(parents=True)
    (tmp_path / "papers" / "gone.html").write_text("old")
    build(workspace, tmp_path)
    assert not (tmp_path / "papers" / "gone.html").exists()


def test_a_workspace_without_any_result_still_has_a_ledger(tmp_path):
    (tmp_path / "params").mkdir()
    build(tmp_path, tmp_path / "site")
    assert "0 claims judged in 0 of 0 papers" in Page(tmp_path / "site" / "index.html").words


def test_stale_numbers_are_marked_on_both_pages(workspace, tmp_path):
    root = tmp_path / "workspace"
    shutil.copytree(workspace, root)
    digests = root / "params" / "chain-bias" / "digests.json"
    digests.write_text(digests.read_text().replace("steps: 5000", "steps: 6000"))
    build(root, tmp_path / "site")
    front = Page(tmp_path / "site" / "index.html")
    states = {row["data-title"]: row["data-state"] for row in front.all("tr") if "data-title" in row}
    assert states["Bias of Tokenized Prompts on a Markov Chain"] == "stale"
    assert states["Prefix Images"] == "current"
    assert (
        "Code or parameters of 21 stages changed after this run."
        in Page(tmp_path / "site" / "papers" / "chain-bias.html").words
    )
