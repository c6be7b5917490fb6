"""The record of the campaign and the document that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import campaign
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def record():
    return json.loads((ROOT / "results" / "chaos.json").read_text())


def test_the_document_shows_the_record(record):
    assert campaign.table(record) in (ROOT / "docs" / "faults.md").read_text()


def test_a_table_counts_what_was_tried_and_what_went_wrong(record):
    wrong = {"fault": "worker", "seed": 999, "wrong": ["a stage ran twice"], "seconds": 1.0, "told": []}
    before, after = (campaign.table(each) for each in (record, record | {"trials": [*record["trials"], wrong]}))
    (changed,) = set(after.splitlines()) - set(before.splitlines())
    assert "SIGKILL of a worker" in changed
    assert changed.endswith("1 wrong |")
