"""A bar that follows the first result it judged is found, unless the paper's file says so."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml
from workspace import REPOSITORY

from flows.ledger.bars import NoGitHistory, claim_bars

TEST = {"metric": "psnr", "arm": "method", "minus": "baseline", "above": 1.0, "note": "words"}


def git(root, *words, day="2026-11-01"):
    moment = f"{day}T12:00:00+00:00"
    names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
             (("NAME", "a"), ("EMAIL", "a@example.org"), ("DATE", moment))}  # fmt: skip
    done = subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, env=os.environ | names)
    return done.stdout.decode().strip()


def declare(root, tests, day, *, changes=(), claim="better"):
    path = root / "params" / "toy" / "paper.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    claims = [{"id": claim, "says": "s", "cites": "c", "scope": "small", "tests": tests}]
    path.write_text(yaml.safe_dump({"slug": "toy", "claims": claims, "history": list(changes)}))
    git(root, "add", "params")
    git(root, "commit", "-qm", f"declared on {day}", day=day)
    return git(root, "rev-parse", "HEAD")


def judge(root, commit, day, claim="better"):
    path = root / "results" / "toy" / "history.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"date": day, "variant": "v", "profile": "small", "git_commit": commit, "claims": [{"id": claim}]}
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    git(root, "add", "results")
    git(root, "commit", "-qm", f"judged on {day}", day=day)


@pytest.fixture
def root(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main")
    commit = declare(tmp_path, [TEST], "2026-11-01")
    judge(tmp_path, commit, "2026-11-02")
    return tmp_path


def bars(root):
    (found,) = claim_bars(root, ["toy"])["toy"]
    return found


def test_a_bar_that_was_committed_before_the_run_and_never_moved_is_no_finding(root):
    assert bars(root).changed is None
    assert not bars(root).late
    assert "before its first result" in str(bars(root))


@pytest.mark.parametrize(
    "tests",
    [[TEST | {"above": 0.9}], [TEST, TEST | {"below": 3, "above": None}], [{**TEST, "arm": "other"}]],
    ids=["lowered", "added", "another arm"],
)
def test_a_test_that_changed_after_the_result_is_found_with_day_and_commit(root, tests):
    declare(root, [TEST], "2026-11-03", changes=[{"date": "2026-11-03", "what": "story", "why": "-"}])
    commit = declare(root, tests, "2026-11-04")
    judge(root, commit, "2026-11-05")  # a later run under the new bar hides nothing
    found = bars(root)
    assert found.late
    assert (found.changed, found.changed_commit, found.first_result) == ("2026-11-04", commit, "2026-11-02")
    assert "say under `history` what changed in 'better'" in str(found)


def test_words_order_of_keys_and_spelling_of_numbers_are_no_change(root):
    declare(
        root,
        [{"above": 1, "minus": "baseline", "note": "other words", "metric": "psnr", "arm": "method"}],
        "2026-11-04",
    )
    assert not bars(root).late


def test_a_change_that_the_paper_declares_is_no_finding(root):
    change = {"date": "2026-11-04", "what": "the bar of better fell to 0.9", "why": "a unit was wrong"}
    declare(root, [TEST | {"above": 0.9}], "2026-11-04", changes=[change])
    assert bars(root).changed == "2026-11-04"
    assert not bars(root).late


@pytest.mark.parametrize("change", [{"date": "2026-11-03"}, {"what": "the bar of another fell"}])
def test_a_declaration_of_something_else_or_from_before_does_not_count(root, change):
    declared = {"date": "2026-11-04", "what": "the bar of better fell to 0.9", "why": "-"} | change
    declare(root, [TEST | {"above": 0.9}], "2026-11-04", changes=[declared])
    assert bars(root).late


def test_a_claim_that_was_removed_after_its_result_is_found(root):
    declare(root, [TEST], "2026-11-04", claim="easier")
    found = bars(root)
    assert (found.claim, found.changed, found.late) == ("better", "2026-11-04", True)


def test_a_claim_that_was_written_after_the_run_that_judged_it_is_found(root):
    before = git(root, "rev-parse", "HEAD")
    claims = [{"id": name, "scope": "small", "tests": [dict(TEST)]} for name in ("better", "late")]
    (root / "params" / "toy" / "paper.yaml").write_text(yaml.safe_dump({"claims": claims}))
    git(root, "commit", "-qam", "a new claim", day="2026-11-05")
    judge(root, f"{before}+changes", "2026-11-05", claim="late")
    late = {found.claim: found.late for found in claim_bars(root, ["toy"])["toy"]}
    assert late == {"better": False, "late": True}


def test_a_change_that_is_not_committed_yet_is_found_too(root):
    path = root / "params" / "toy" / "paper.yaml"
    path.write_text(path.read_text().replace("above: 1.0", "above: 0.5"))
    assert bars(root).late
    assert bars(root).changed_commit == ""


def test_without_git_or_with_a_cut_history_it_says_so_instead_of_finding_nothing(root, tmp_path_factory):
    bare = tmp_path_factory.mktemp("bare")
    (bare / "results" / "toy").mkdir(parents=True)
    (bare / "results" / "toy" / "history.jsonl").write_bytes((root / "results" / "toy" / "history.jsonl").read_bytes())
    with pytest.raises(NoGitHistory, match="not the top folder"):
        claim_bars(bare, ["toy"])
    judge(root, "f" * 40, "2026-11-06", claim="unknown")
    with pytest.raises(NoGitHistory, match="unshallow"):
        claim_bars(root, ["toy"])


def judged_slugs():
    return sorted(path.parent.name for path in (REPOSITORY / "results").glob("*/history.jsonl"))


@pytest.mark.parametrize("slug", judged_slugs())
def test_no_bar_of_this_repository_follows_the_first_result_it_judged(slug):
    try:
        late = [str(found) for found in claim_bars(REPOSITORY, [slug])[slug] if found.late]
    except NoGitHistory as error:
        pytest.skip(str(error))
    assert late == []


@pytest.mark.parametrize("slug", judged_slugs())
def test_the_verdicts_of_this_repository_only_grew(slug):
    path = f"results/{slug}/history.jsonl"
    show = subprocess.run(
        ["git", "-C", REPOSITORY, "log", "--reverse", "--format=%H", "--", path], capture_output=True, check=False
    )
    commits = show.stdout.decode().split()
    if not commits:
        pytest.skip("no git history of this file")
    before = b""
    for commit in commits:
        content = subprocess.run(
            ["git", "-C", REPOSITORY, "show", f"{commit}:{path}"], capture_output=True, check=False
        ).stdout
        assert content.startswith(before), f"{commit} edits lines of {path}"
        before = content
    assert (REPOSITORY / path).read_bytes().startswith(before)
