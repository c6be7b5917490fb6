"""Reading results back: claims, counts, the terminal's table."""

import json

import pytest
from rich.console import Console

from flows.ledger.judge import judge
from flows.ledger.results import (
    ResultsError,
    claim_rows,
    count_verdicts,
    read_records,
    read_summaries,
    read_verdicts,
    verdict_counts,
    verdict_table,
)
from flows.ledger.verdicts import to_precision

PROVENANCE = {"git_commit": "a" * 40, "machine": {}}
CLAIMS = [
    {"id": "holds", "tests": [{"metric": "score", "arm": "method", "above": 1.0}]},
    {"id": "fails", "tests": [{"metric": "score", "arm": "method", "above": 9.0}]},
    {"id": "gated", "tests": [{"metric": "score", "arm": "method", "above": 1.0}],
     "gates": [{"metric": "score", "arm": "baseline", "above": 9.0}]},
    {"id": "large", "scope": "full-only", "needs": "a cluster."},
    {"id": "elsewhere", "variant": "digits", "tests": [{"metric": "score", "arm": "method", "above": 1.0}]},
    {"id": "shown", "variant": "photos", "tests": [{"metric": "score", "arm": "codec", "above": 1.0}]},
]  # fmt: skip


def fill(table, arm, seed):
    table.add("score", 2.0 + 0.01 * seed + (arm == "method"), unit="dB", samples=10)


@pytest.fixture
def judged(make_paper, make_context, tmp_path):
    """The toy paper, judged on its canonical and its demo variant."""
    paper = make_paper(CLAIMS)
    for variant in ("shapes", "photos"):
        judge(make_context(paper, fill, variant=variant), PROVENANCE)
    return tmp_path, paper


def test_every_declared_claim_has_a_row_and_what_was_not_run_says_so(judged):
    root, paper = judged
    assert {row.id: row.verdict for row in claim_rows(root, paper)} == {
        "holds": "reproduced",
        "fails": "contradicted",
        "gated": "inconclusive",
        "large": "out of scale",
        "elsewhere": "not run yet",
        "shown": "reproduced",
    }


def test_demo_claims_are_never_counted(judged):
    root, paper = judged
    counts = count_verdicts(claim_rows(root, paper))
    assert counts["reproduced"] == 1
    assert verdict_counts(root, paper) == "1 reproduced, 1 contradicted, 1 inconclusive, 1 out of scale, 1 not run yet"


def test_a_paper_that_was_never_judged_has_no_counts(make_paper, tmp_path):
    assert verdict_counts(tmp_path, make_paper(CLAIMS)) == ""


def test_a_full_run_outranks_the_small_one(judged):
    root, paper = judged
    small = json.loads((root / "results" / "toy-paper" / "shapes" / "verdicts.json").read_text())
    full = small | {"profile": "full"}
    next(claim for claim in full["claims"] if claim["id"] == "large")["verdict"] = "contradicted"
    folder = root / "results" / "toy-paper" / "full" / "shapes"
    folder.mkdir(parents=True)
    (folder / "verdicts.json").write_text(json.dumps(full))
    assert [record.profile for record in read_records(root, paper)] == ["small", "full", "small"]
    assert {row.id: row.verdict for row in claim_rows(root, paper)}["large"] == "contradicted"


def test_summaries_hold_the_interval_over_seeds_and_none_where_it_was_refused(judged):
    root, _ = judged
    found = {summary.arm: summary for summary in read_summaries(root / "results" / "toy-paper" / "shapes")}
    assert (found["method"].n, found["method"].unit) == (3, "dB")
    assert found["method"].mean == pytest.approx(3.01)
    assert found["method"].low < found["method"].mean < found["method"].high
    assert found["single"].low == -float("inf")
    assert found["codec"].low == found["codec"].mean == found["codec"].high
    assert read_summaries(root / "nowhere") == []


def test_the_terminal_table_shows_the_deciding_test_and_marks_demos(judged):
    root, _ = judged
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    folder = root / "results" / "toy-paper"
    console.print(verdict_table([folder / "shapes", folder / "photos", folder / "never-run"]))
    text = console.export_text()
    assert "toy-paper (photos, demo)" in text
    assert "score(method) > 9: 3.010 [2.985, 3.035] dB" in text
    assert "gate not met: score(baseline) > 9" in text
    assert "Needs a cluster." in text


def test_damaged_verdicts_are_named_with_what_to_do(tmp_path):
    assert read_verdicts(tmp_path) is None
    (tmp_path / "verdicts.json").write_text("{")
    with pytest.raises(ResultsError, match=r"verdicts\.json is not readable as JSON .* rerun the judge stage"):
        read_verdicts(tmp_path)
    (tmp_path / "verdicts.json").write_text("{}")
    with pytest.raises(ResultsError, match="holds no verdicts"):
        read_verdicts(tmp_path)


@pytest.mark.parametrize(
    "value, spread, words",
    [
        (1.38571, 0.133, "1.39"),
        (60.2468, 2.1, "60.2"),
        (-0.5, 0.031, "−0.500"),
        (1234.5, 77, "1234"),
        (5e-9, 1e-9, "5e−9"),
    ],
)
def test_numbers_keep_the_digits_their_interval_lets_stand(value, spread, words):
    assert to_precision(value, spread) == words
