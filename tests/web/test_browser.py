"""The ledger in a real browser, where the machine has one; the same facts read from the HTML where it has none."""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# Drives the pages in frames of a phone's width, as a person would, and leaves what it saw in the document.
PROBE = """<!doctype html><title>probe</title><body><pre id="seen"></pre><script>
const frame = (path, width) => new Promise((done) => {
  const element = document.createElement("iframe");
  element.style.cssText = `width:${width}px;height:800px;border:0`;
  element.onload = () => done(element);
  element.src = path;
  document.body.append(element);
});
const rows = (page) => Array.from(page.querySelectorAll("#papers tbody tr"));
const shown = (page) => rows(page).filter((row) => row.offsetHeight > 0).map((row) => row.dataset.title);
const set = (page, id, value) => {
  const control = page.getElementById(id);
  control.value = value;
  control.dispatchEvent(new page.defaultView.Event("input", {bubbles: true}));
};
(async () => {
  const seen = {};
  const view = await frame("index.html", 1280);
  const page = view.contentDocument;
  const sort = (key) => page.querySelector(`button[data-sort=${key}]`).click();
  const state = (key) => page.querySelector(`button[data-sort=${key}]`).closest("th").getAttribute("aria-sort");
  seen.all = shown(page).length;
  set(page, "filter-verdict", "inconclusive");
  seen.inconclusive = shown(page);
  set(page, "filter-verdict", "");
  set(page, "filter-text", "markov CHAIN");
  seen.found = shown(page);
  seen.status = page.getElementById("shown").textContent;
  seen.address = view.contentWindow.location.hash;
  set(page, "filter-text", "no such paper at all");
  seen.nothing = !page.getElementById("nothing").hidden;
  page.getElementById("reset").click();
  seen.reset = [shown(page).length, page.activeElement.id];
  sort("minutes");
  seen.costly = [shown(page)[0], state("minutes")];
  sort("title");
  seen.first = [shown(page)[0], state("title"), state("minutes")];
  sort("title");
  seen.last = [shown(page)[0], state("title")];
  seen.wide = {};
  const paper = "papers/prefix-images.html";
  for (const [path, width] of [["index.html", 360], [paper, 360], [paper, 1280]]) {
    const narrow = (await frame(path, width)).contentDocument;
    narrow.querySelectorAll("details").forEach((part) => { part.open = true; });
    seen.wide[`${path} at ${width}`] = narrow.documentElement.scrollWidth;
    seen.broken = Array.from(narrow.images).filter((image) => !image.naturalWidth).length;
  }
  document.getElementById("seen").textContent = JSON.stringify(seen);
})().catch((error) => { document.getElementById("seen").textContent = JSON.stringify({error: String(error)}); });
</script>"""


def browser() -> str | None:
    """Return the first Chromium-like browser on the path."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def dump(executable: str, address: str, profile: Path) -> str:
    """Load an address and return the document as it stands after its scripts."""
    command = [
        executable,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
        "--window-size=1400,1000",
        "--virtual-time-budget=20000",
        "--dump-dom",
        address,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_):
        """Say nothing."""


def test_sorting_filtering_and_a_phones_width_work(site, tmp_path):
    executable = browser()
    if executable is None:
        check_statically(site)
        return
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    (folder / "probe.html").write_text(PROBE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        document = dump(executable, f"http://127.0.0.1:{server.server_port}/probe.html", tmp_path / "profile")
    finally:
        server.shutdown()
        server.server_close()
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', document, re.DOTALL)[1]))
    assert "error" not in seen, seen
    assert seen["all"] == 23
    assert seen["inconclusive"] == ["Prefix Images"]
    assert seen["found"] == ["Bias of Tokenized Prompts on a Markov Chain"]
    assert (seen["status"], seen["address"]) == ("1 of 23 papers", "#text=markov+CHAIN")
    assert seen["nothing"]
    assert seen["reset"] == [23, "filter-text"]
    assert seen["costly"] == ["Bias of Tokenized Prompts on a Markov Chain", "descending"]
    assert seen["first"] == ["A Paper Declared but Not Run", "ascending", "none"]
    assert seen["last"] == ["Prefix Images", "descending"]
    for page, width in seen["wide"].items():
        assert width <= int(page.rpartition(" ")[2]), page
    assert seen["broken"] == 0

    # From disk, with the view in the address: the page's own policy must let its own script run.
    page = dump(executable, f"{(site / 'index.html').as_uri()}#verdict=inconclusive&sort=-title", tmp_path / "profile")
    assert '<p class="faint" id="shown" role="status" aria-live="polite">1 of 23 papers</p>' in page
    assert page.count('hidden=""') >= 22


def check_statically(site: Path) -> None:
    """What can be said without a browser: the script is the one the policy allows, and a phone has its own rules."""
    import base64
    import hashlib

    text = (site / "index.html").read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    for name in ("filter-text", "filter-family", "filter-study", "filter-verdict", "shown", "nothing", "reset"):
        assert f'id="{name}"' in text
    assert all(word in script for word in ("localeCompare", "row.hidden", "aria-sort", "hashchange"))
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media (max-width: 46rem)" in text


def test_what_is_checked_without_a_browser_holds_too(site):
    check_statically(site)
