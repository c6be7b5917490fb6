"""The history of verdicts only grows, and only by news."""

import copy
import json
import threading
from pathlib import Path

import jsonschema
import pytest

from flows.ledger.history import FILE, HistoryError, append, read

ROOT = Path(__file__).parents[3]


def verdicts(estimate=2.0, verdict="reproduced", bar=1.0, **changes):
    test = {
        "test": "psnr > 1",
        "estimate": estimate,
        "interval": [estimate - 0.1, None],
        "bar": bar,
        "holds": "holds",
        "seeds": 3,
    }
    record = {
        "paper": "toy-paper",
        "variant": "shapes",
        "canonical": True,
        "demo": False,
        "profile": "small",
        "claims": [{"id": "better", "verdict": verdict, "tests": [test], "says": "x"}],
        "git_commit": "a" * 40,
        "stages": {"shapes-evaluate-method-s0": "0" * 32 + ".dir"},
    }
    return record | changes


def test_the_first_judgement_is_recorded_with_its_date_commit_tier_and_hashes(tmp_path):
    assert append(tmp_path, verdicts(), "2026-11-25")
    (entry,) = read(tmp_path)
    assert (entry["date"], entry["git_commit"]) == ("2026-11-25", "a" * 40)
    assert entry["claims"][0]["tier"] == "reimplemented here"
    assert entry["stages"] == verdicts()["stages"]
    assert entry["claims"][0]["verdict"] == "reproduced"


def test_a_rerun_with_the_same_numbers_adds_nothing_whatever_its_date_commit_or_last_digits(tmp_path):
    append(tmp_path, verdicts(), "2026-11-25")
    before = (tmp_path / FILE).read_bytes()
    assert not append(tmp_path, verdicts(), "2026-11-26")
    assert not append(tmp_path, verdicts(estimate=2.0 + 1e-9, git_commit="b" * 40, stages={}), "2026-11-27")
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("change", [{"estimate": 2.001}, {"verdict": "inconclusive"}, {"bar": 0.9}])
def test_a_changed_verdict_estimate_or_bar_is_appended_behind_what_stands_there(tmp_path, change):
    append(tmp_path, verdicts(), "2026-11-25")
    before = (tmp_path / FILE).read_bytes()
    assert append(tmp_path, verdicts(**change), "2026-11-26")
    assert (tmp_path / FILE).read_bytes().startswith(before)
    assert [entry["date"] for entry in read(tmp_path)] == ["2026-11-25", "2026-11-26"]
    # Going back is news again.
    assert append(tmp_path, verdicts(), "2026-11-27")


def test_variants_have_their_own_past_in_one_file(tmp_path):
    assert append(tmp_path, verdicts(), "2026-11-25")
    assert append(tmp_path, verdicts(variant="digits", canonical=False), "2026-11-25")
    assert not append(tmp_path, verdicts(), "2026-11-25")
    assert len(read(tmp_path)) == 2


@pytest.mark.parametrize("change", [{"demo": True}, {"profile": "smoke"}, {"claims": []}])
def test_demos_smoke_runs_and_variants_without_claims_leave_no_trace(tmp_path, change):
    assert not append(tmp_path, verdicts(**change), "2026-11-25")
    assert not (tmp_path / FILE).exists()


def test_a_damaged_file_is_reported_with_its_line_and_left_alone(tmp_path):
    append(tmp_path, verdicts(), "2026-11-25")
    path = tmp_path / FILE
    path.write_text(path.read_text() + '{"date": \n')
    before = path.read_bytes()
    with pytest.raises(HistoryError, match=r"history\.jsonl:2 is no history entry"):
        append(tmp_path, verdicts(estimate=3.0), "2026-11-26")
    assert path.read_bytes() == before


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    append(tmp_path, verdicts(), "2026-11-25")
    before = (tmp_path / FILE).read_bytes()

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr("components.training.atomic.os.replace", crash)
    with pytest.raises(OSError, match="disk full"):
        append(tmp_path, verdicts(estimate=3.0), "2026-11-26")
    assert (tmp_path / FILE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


def test_variants_that_are_judged_at_the_same_time_all_get_their_entry(tmp_path):
    records = [copy.deepcopy(verdicts(variant=f"v{index}")) for index in range(12)]
    threads = [threading.Thread(target=append, args=(tmp_path, record, "2026-11-25")) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["variant"] for entry in read(tmp_path)) == sorted(record["variant"] for record in records)
    assert all(json.loads(line) for line in (tmp_path / FILE).read_text().splitlines())


def test_every_line_of_this_repositorys_histories_follows_the_published_schema():
    schema = json.loads((ROOT / "params" / "schema" / "history.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted((ROOT / "results").glob("*/history.jsonl")):
        for line in path.read_text().splitlines():
            assert list(validator.iter_errors(json.loads(line))) == [], path


def test_what_is_appended_follows_the_published_schema(tmp_path):
    schema = json.loads((ROOT / "params" / "schema" / "history.schema.json").read_text())
    append(tmp_path, verdicts(), "2026-11-25", {"better": "rerun here"})
    jsonschema.validate(json.loads((tmp_path / FILE).read_text()), schema)
    assert read(tmp_path)[0]["claims"][0]["tier"] == "rerun here"


def test_a_tier_that_an_early_entry_says_once_is_that_of_its_claims(tmp_path):
    append(tmp_path, verdicts(), "2026-11-25")
    entry = json.loads((tmp_path / FILE).read_text())
    del entry["claims"][0]["tier"]
    (tmp_path / FILE).write_text(json.dumps(entry | {"tier": "rerun here"}) + "\n")
    assert read(tmp_path)[0]["claims"][0]["tier"] == "rerun here"
    assert not append(tmp_path, verdicts(), "2026-11-26", {"better": "rerun here"})
