"""The last verification of a variant is kept, shown, and marked where the results have changed since."""

import json
from pathlib import Path

import jsonschema
import pytest

from flows.ledger.results import ResultsError
from flows.ledger.verified import FILE, Verification, read, standing, write

CONFIRMED = Verification("2026-11-25", "confirmed", "bit-exact", "a" * 40, "b" * 40, "880 values equal")


def test_the_last_verification_of_each_variant_is_kept(tmp_path):
    write(tmp_path, "toy", "shapes", CONFIRMED)
    moved = Verification("2026-11-26", "moved", "seeds", "c" * 40, "b" * 40, "psnr moved")
    write(tmp_path, "toy", "digits", CONFIRMED)
    write(tmp_path, "toy", "shapes", moved)
    assert read(tmp_path, "toy") == {"shapes": moved, "digits": CONFIRMED}
    assert read(tmp_path, "other") == {}


def test_lines_are_added_and_never_changed_and_are_what_the_published_schema_says(tmp_path):
    schema = json.loads((Path(__file__).parents[3] / "params/schema/verifications.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    path = tmp_path / "results" / "toy" / FILE
    moved = Verification("2026-11-26", "moved", "seeds", "c" * 40, "", "psnr moved", 8, ("psnr of vq",), {"threads": 1})
    failed = Verification("2026-11-27", "failed", "", "c" * 40, "", "a stage failed", against="elsewhere/results")
    before = b""
    for verification in (CONFIRMED, moved, failed):
        write(tmp_path, "toy", "shapes", verification)
        assert path.read_bytes().startswith(before)
        before = path.read_bytes()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["state"] for line in lines] == ["confirmed", "moved", "failed"]
    for line in lines:
        jsonschema.validate(line, schema)
    assert read(tmp_path, "toy") == {"shapes": failed}


def test_its_standing_says_whether_it_was_of_the_results_that_are_there_now():
    assert standing(None, {"git_commit": "b" * 40}) == "not verified yet"
    assert standing(CONFIRMED, {"git_commit": "b" * 40}) == "confirmed 2026-11-25"
    assert standing(CONFIRMED, {"git_commit": "d" * 40}) == "confirmed 2026-11-25, for earlier results"


@pytest.mark.parametrize("content", ["{", "[]", '{"shapes": {"date": "2026-11-25"}}'])
def test_a_damaged_file_says_how_to_restore_it(tmp_path, content):
    path = tmp_path / "results" / "toy" / FILE
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ResultsError, match="git checkout --"):
        read(tmp_path, "toy")
