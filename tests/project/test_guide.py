"""The guide to a paper of one's own, followed to the letter: from `tessera new` to a judged paper."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from documents import ALL_BLOCKS, GUIDE, Block
from tracked import ROOT, files
from workspace import command, write

STEPS = [block for block in ALL_BLOCKS if block.section == GUIDE]
NEEDS_RAY = ("tessera reproduce", "tessera verify")


def copy_of_this_repository(root: Path) -> Path:
    """What a reader has cloned: everything but the tests, of which the guide needs none."""
    for path in files():
        if path.parts[0] != "tests":
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, root / path)
    command(root, "git", "init", "-q", "-b", "main")
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-q", "-m", "clone")
    return root


def follow(root: Path, step: Block) -> str:
    """Do what one block says: write its file, or type its commands; return what they print."""
    if step.language != "sh":
        assert step.file, f"{step.name}: the sentence above names no file"
        write(root, step.file, step.body)
        return ""
    done = command(root, "bash", "-ec", step.body, check=False, timeout=600)
    assert done.returncode == 0, f"{step.name}\n{step.body}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_guide_starts_with_new_and_writes_over_what_new_wrote():
    assert STEPS[0].body.startswith("tessera new sign-codes")
    assert [step.file for step in STEPS if step.file] == [
        "components/quantizers/sign_codes.py",
        "tests/components/quantizers/test_sign_codes.py",
        "params/sign-codes/paper.yaml",
    ]
    commands = [line for step in STEPS if step.language == "sh" for line in step.body.splitlines()]
    assert commands[-1] == "tessera verify sign-codes"


def test_until_the_first_run_the_guide_gives_a_valid_paper_with_a_proven_method(tmp_path):
    root = copy_of_this_repository(tmp_path / "clone")
    said = ""
    for step in STEPS:
        lines = step.body.splitlines() if step.language == "sh" else []
        cheap = [line for line in lines if not line.startswith(NEEDS_RAY)]
        if lines and len(cheap) < len(lines):
            said += (
                follow(root, Block(step.document, step.line, step.section, "sh", "\n".join(cheap), "")) if cheap else ""
            )
            break
        said += follow(root, step)
    assert "1. State the facts" in said
    assert "4 passed" in said
    assert ": valid." in said
    assert "sign-codes/paper.yaml" not in said.partition("4 passed")[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_guide_leads_from_new_to_a_judged_and_confirmed_paper(tmp_path):
    root = copy_of_this_repository(tmp_path / "clone")
    said = "".join(follow(root, step) for step in STEPS)
    assert "the wiring holds" in said
    verdicts = json.loads((root / "results/sign-codes/photos/verdicts.json").read_text())
    assert [claim["verdict"] for claim in verdicts["claims"]] == ["reproduced"]
    assert "costs-little  reproduced" in said
    assert (root / "site/papers/sign-codes.html").is_file()
    assert "confirmed" in said.splitlines()[-1]
    verifications = (root / "results/sign-codes/verifications.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in verifications] == ["confirmed"]
