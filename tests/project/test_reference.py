"""The API reference builds from the docstrings, without a warning, and needs nothing from outside."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tracked import ROOT, modules


def recipe(out: Path) -> list[str]:
    """Return the command that `make docs` runs, as make itself expands it."""
    words = ["make", "--dry-run", "docs", f"OUT={out}"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in said.replace("\\\n", " ").splitlines() if " -m pdoc " in line]
    return [sys.executable, *shlex.split(line)[1:]]


def test_make_docs_documents_both_packages_and_turns_warnings_into_errors(tmp_path):
    words = recipe(tmp_path)
    assert words[words.index("pdoc") + 1 : words.index("pdoc") + 3] == ["components", "flows"]
    assert words[1:3] == ["-W", "error::UserWarning"]
    assert words[-1] == str(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_builds_without_warnings_and_holds_every_module(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(recipe(tmp_path), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warn" not in done.stderr
    pages = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.html")}
    wanted = {path.with_suffix("").as_posix() for path in modules() if path.parts[0] in ("components", "flows")}
    assert {module.removesuffix("/__init__") for module in wanted} - pages == set()
    page = (tmp_path / "components/quantizers/vq.html").read_text(encoding="utf-8")
    assert "commitment_weight" in page
    assert "Dhariwal" in page
    fetched = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["']https?://""")
    assert [path.name for path in tmp_path.rglob("*.html") if fetched.search(path.read_text(encoding="utf-8"))] == []
