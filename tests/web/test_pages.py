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


def test_there_is_a_page_for_each_declared_paper_each_study_with_entries_and_each_module_behind_a_number(pages):
    assert sorted(pages) == [
        "benchmarks.html",
        "history.html",
        "index.html",
        "leaderboards.html",
        "leaderboards/image-tokenizer.html",
        "papers/chain-bias.html",
        "papers/prefix-images.html",
        "papers/rival-images.html",
        "papers/waiting-paper.html",
        "reading.html",
        "source/components.quantizers.vq.html",
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
    ids_of = {name: {a["id"] for _, a in page.elements if "id" in a} for name, page in pages.items()}
    for name, page in pages.items():
        ids = ids_of[name]
        for tag, attributes in page.elements:
            target = attributes.get("href", "")
            if tag == "link" or not target:
                continue
            path, _, fragment = target.partition("#")
            if path:
                found = (site / name).parent.joinpath(path).resolve()
                assert found.is_file(), (name, target)
                page_ids = ids_of[str(found.relative_to(site.resolve()))] if found.suffix == ".html" else {fragment}
                assert not fragment or fragment in page_ids, (name, target)
            else:
                # The front page keeps its filters behind the hash.
                assert fragment in ids or (name == "index.html" and fragment.startswith("family=")), (name, target)


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
    assert len(rows) == len(ledger["papers"]) == 24
    assert sum("not built yet" in row["data-verdicts"] for row in rows) == 20
    assert f"1 of 24 papers work, with {sum(ledger['counts'].values())} claims judged" in page.words
    assert ledger["counts"] == {"reproduced": 5, "contradicted": 1, "inconclusive": 1, "out of scale": 1}
    assert ledger["working"] == 1
    waiting = next(row for row in rows if row["data-title"] == "A Paper Declared but Not Run")
    assert waiting["data-verdicts"] == "not run yet|"


def test_the_front_page_can_be_sorted_filtered_and_used_with_a_keyboard(pages, site):
    page = pages["index.html"]
    keys = {button["data-sort"] for button in page.all("button") if "data-sort" in button}
    assert keys == {"title", "family", "study", "reproduced", "data", "minutes", "state"}
    for row in (row for row in page.all("tr") if "data-title" in row):
        assert {f"data-{key}" for key in keys} <= row.keys()
    labelled = page.all("input") + page.all("select")
    assert {control["id"] for control in labelled} == {
        f"filter-{name}" for name in ("text", "family", "study", "verdict", "data", "scope")
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
        "head-concentration inconclusive, reimplemented here",
        "out of scale out of scale A masked generator",
        "3 seeds, 60 items, nothing masked",
        "1.50 GiB at most in one stage",
        "confirmed 2026-11-26: every value is equal",
        "a random tail is removed from every batch trained here 0, 1, 2",
        "components/quantizers/vq.py Vector quantization with unit-norm codes.",
        "reported in Section 4.1, Figure 5",
        "Not run yet: photos",
    ):
        assert part in words, part


def test_the_json_follows_its_published_schema_and_the_schemas_lie_beside_it(site):
    names = ("ledger", "verdicts", "history", "verifications")
    schemas = {name: json.loads((SCHEMAS / f"{name}.schema.json").read_text()) for name in names}
    registry = Registry().with_resources(
        [(schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()]
    )
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schemas["ledger"], registry=registry)
    validator.validate(json.loads((site / "ledger.json").read_text()))
    for name, schema in schemas.items():
        assert json.loads((site / f"{name}.schema.json").read_text()) == schema


def test_building_again_gives_the_same_bytes_and_touches_no_file(workspace, site):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in site.rglob("*.html")}
    assert build(workspace, site) == site / "index.html"
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in site.rglob("*.html")}


def test_pages_of_papers_studies_and_modules_that_are_gone_are_removed(workspace, tmp_path):
    for folder in ("papers", "leaderboards", "source"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "gone.html").write_text("old")
    build(workspace, tmp_path)
    assert list(tmp_path.rglob("gone.html")) == []


def test_a_workspace_without_any_result_still_has_a_ledger(tmp_path):
    (tmp_path / "params").mkdir()
    build(tmp_path, tmp_path / "site")
    assert "0 of 0 papers work, with 0 claims judged" in Page(tmp_path / "site" / "index.html").words


def test_stale_numbers_are_marked_on_both_pages(workspace, tmp_path):
    root = tmp_path / "workspace"
    shutil.copytree(workspace, root)
    digests = root / "params" / "chain-bias" / "digests.json"
    digests.write_text(digests.read_text().replace('"steps": 5000', '"steps": 6000'))
    build(root, tmp_path / "site")
    front = Page(tmp_path / "site" / "index.html")
    states = {row["data-title"]: row["data-state"] for row in front.all("tr") if "data-title" in row}
    assert states["Bias of Tokenized Prompts on a Markov Chain"] == "in progress"
    assert states["Prefix Images"] == "works"
    assert "numbers older than the code, no figure" in front.words
    assert (
        "Code or parameters of 21 stages changed after this run."
        in Page(tmp_path / "site" / "papers" / "chain-bias.html").words
    )


def test_verdicts_are_counted_for_every_family_and_the_facts_say_on_what_for_how_much_and_when(pages):
    words = pages["index.html"].words
    for part in (
        "text 0 of 4 2 0 0 0",
        "image 1 of 5 3 1 1 1",
        "audio 0 of 4 0 0 0 0",
        "AMD EPYC 7B13, 2 cores, 8.0 GiB",
        "at most 1.5 GiB",
        "judged 2026-11-24",
        "last on 2026-11-26 : 1 of 3 results confirmed",
        "7 reimplemented here",
    ):
        assert part in words, part


def test_papers_that_ran_alike_stand_on_one_leaderboard_with_rank_interval_p_and_probability(pages, site):
    words = pages["leaderboards/image-tokenizer.html"].words
    for part in (
        "Tokenizers on generated scenes",
        "data shapes · image side 32 · steps 5,000",
        "psnr in dB: 36 entries at 6 rates",
        "rank 1 rival rival-images front",
        "seeds and items pair",
        "rank 3, shared jpeg prefix-images",
    ):
        assert part in words, part
    (board,) = json.loads((site / "ledger.json").read_text())["leaderboards"]
    (panel,) = board["panels"]
    assert {entry["paper"] for entry in panel["entries"]} == {"prefix-images", "rival-images"}
    longest = {entry["arm"]: entry for entry in panel["entries"] if entry["at"] == "k=32"}
    assert longest["rival"]["rate"] == pytest.approx(32 * 9 / 1024)
    # rival is at 19.5 dB, no_drop at 19 and twin at 18.5: an arm of each paper is better than the twin.
    assert (longest["rival"]["rank"], longest["rival"]["front"]) == (1, True)
    assert longest["twin"]["rank"] == 3
    against = longest["twin"]["against_best"]
    assert against["pairing"] == "seeds and items"
    assert against["p_value"] < 0.01
    assert against["improvement"] == 0.0
    assert -1.2 < against["interval"][0] < -1.0 < against["interval"][1] < -0.8
    assert "What nobody ran" not in words


def test_the_history_tells_tiers_apart_and_says_what_changed(pages):
    words = pages["history.html"].words
    for part in (
        "0 claims: the authors' released code or weights",
        "7 claims: built anew",
        "1 claim: judging it needs the paper's own scale",
        "1 claim: the paper's own number",
        "This copy has no git history",
        "The gate rose from 17.0 to 17.6 dB",
        "better Another Tokenizer on the Same Images, on scenes contradicted",
    ):
        assert part in words, part


def test_every_metric_of_every_study_is_defined_with_unit_and_direction(pages):
    words = pages["reading.html"].words
    assert "psnr dB Peak signal-to-noise ratio of decoded test images, averaged over images. Higher is better." in words
    assert "mae probability" in words


def test_source_is_shown_as_it_is_line_by_line(pages, site):
    page = pages["source/components.quantizers.vq.html"]
    text = (Path(__file__).parents[2] / "components" / "quantizers" / "vq.py").read_text()
    start = next(i for i, part in enumerate(page.text) if part.startswith('"""'))
    shown = "".join(page.text[start:])
    assert shown.startswith(text)
    assert sum("id" in row and row["id"].startswith("L") for row in page.all("span")) == len(text.splitlines())


def test_a_page_of_source_is_rendered_again_only_when_its_text_or_its_look_changed(workspace, tmp_path, monkeypatch):
    import flows.ledger.page as page_module

    build(workspace, tmp_path)
    path = tmp_path / "source" / "components.quantizers.vq.html"
    before = path.read_bytes()
    monkeypatch.setattr(page_module, "highlighted", lambda text: pytest.fail("rendered again"))
    build(workspace, tmp_path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    path.write_text("damaged")
    build(workspace, tmp_path)
    assert path.read_bytes() == before
