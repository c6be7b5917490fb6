"""The judge stage: what it writes."""

import itertools
import json
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest

from components.metrics.tables import MetricTable
from flows.ledger.hashes import directory_md5
from flows.ledger.judge import judge
from flows.ledger.measurements import JUDGED_METRICS, MeasurementError

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "params" / "schema" / "verdicts.schema.json").read_text())
PROVENANCE = {"git_commit": "a" * 40, "machine": {"processor": "the judge's own"}}


def fill(table: MetricTable, arm: str, seed: int) -> None:
    level = {"method": 22.0, "baseline": 20.0}.get(arm, 21.0)
    rng = np.random.default_rng([seed, int(level)])
    for k in (4, 8):
        table.add_items("psnr", level + k + rng.standard_normal(30), unit="dB", at={"k": k}, normaliser="images")
    table.add("fd", level, unit="", samples=5000, masked_share=0.25)


def read(directory: Path) -> dict:
    return json.loads((directory / "verdicts.json").read_text())


def test_the_record_follows_the_published_schema_and_holds_what_the_contract_names(make_paper, make_context):
    context = make_context(make_paper(), fill)
    judge(context, PROVENANCE)
    record = read(context.output)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(record, SCHEMA)
    assert (record["paper"], record["variant"], record["canonical"], record["demo"]) == (
        "toy-paper",
        "shapes",
        True,
        False,
    )
    (claim,) = record["claims"]
    assert claim["verdict"] == "reproduced"
    (test,) = claim["tests"]
    assert test["test"] == "psnr(method) − psnr(baseline) at k=8 > 1"
    assert test["interval"][0] < test["estimate"] < test["interval"][1]
    assert (test["bar"], test["accepts"], test["seeds"], test["samples"]) == (1.0, [1.0, None], 3, 30)
    assert record["git_commit"] == "a" * 40


def test_every_field_of_a_record_has_a_meaning_in_the_schema():
    described = [SCHEMA["properties"], SCHEMA["$defs"]["test"]["properties"]]
    assert all("description" in field for fields in described for name, field in fields.items())


def test_open_intervals_and_undefined_estimates_are_null_in_json(make_paper, make_context):
    tests = [
        {"metric": "fd", "arm": "single", "above": 1},
        {"metric": "zero", "arm": "method", "over": "baseline", "above": 1},
    ]
    paper = make_paper([{"id": "open", "tests": tests}])

    def with_zero(table, arm, seed):
        fill(table, arm, seed)
        table.add("zero", 0.0, unit="", samples=1)

    context = make_context(paper, with_zero)
    judge(context, PROVENANCE)
    record = read(context.output)
    jsonschema.validate(record, SCHEMA)
    first, second = record["claims"][0]["tests"]
    assert first["interval"] == [None, None]
    assert (second["estimate"], second["interval"]) == (None, [None, None])
    assert record["claims"][0]["verdict"] == "inconclusive"


def test_stage_hashes_are_those_of_the_run_directories_under_their_dvc_names(make_paper, make_context):
    context = make_context(make_paper(), fill)
    judge(context, PROVENANCE)
    stages = read(context.output)["stages"]
    assert stages["shapes-evaluate-codec-s0"] == directory_md5(context.evaluations["codec", 0])
    assert stages["shapes-train-method-s2"] == directory_md5(context.trainings["method", 2])
    assert len(stages) == 16
    assert not any("train-ablation" in name or "train-codec" in name for name in stages)


def test_minutes_and_machine_come_from_what_the_stages_recorded(make_paper, make_context):
    context = make_context(make_paper(), fill)
    judge(context, PROVENANCE)
    record = read(context.output)
    # 3 + 3 + 1 trained runs of 60 s (one used by two arms), 9 evaluations of 6 s.
    assert record["minutes"] == pytest.approx((7 * 60 + 9 * 6) / 60, abs=1e-3)
    assert record["timed_stages"] == 16
    assert record["machine"] == {"processor": "a CPU", "cores": 2, "class": "x"}

    log = context.evaluations["method", 0].parent / "log" / "environment.json"
    log.write_text(json.dumps({"wall_seconds": 6.0, "machine": {"processor": "another", "cores": 2, "class": "y"}}))
    judge(context, PROVENANCE)
    assert read(context.output)["machine"] == {"processor": "a CPU / another", "cores": 2, "class": "x / y"}


def test_without_records_of_the_stages_the_time_is_unknown_and_the_judges_machine_stands(make_paper, make_context):
    context = make_context(make_paper(), fill)
    for run in [*context.evaluations.values(), *context.trainings.values()]:
        (run.parent / "log" / "environment.json").unlink(missing_ok=True)
    judge(context, PROVENANCE)
    record = read(context.output)
    jsonschema.validate(record, SCHEMA)
    assert (record["minutes"], record["timed_stages"]) == (None, 0)
    assert record["machine"] == {"processor": "the judge's own"}


def test_metrics_are_means_over_items_with_the_variance_of_that_mean(make_paper, make_context):
    context = make_context(make_paper(), fill)
    judge(context, PROVENANCE)
    frame = pl.read_parquet(context.output / "metrics.parquet")
    assert dict(frame.schema) == JUDGED_METRICS
    raw = pl.read_parquet(context.evaluations["method", 1] / "metrics.parquet").filter(pl.col("at") == "k=8")["value"]
    row = frame.row(
        by_predicate=(pl.col("arm") == "method") & (pl.col("seed") == 1) & (pl.col("at") == "k=8"), named=True
    )
    assert row["value"] == pytest.approx(raw.mean())
    assert row["variance"] == pytest.approx(raw.var() / 30)
    assert (row["samples"], row["unit"], row["normaliser"]) == (30, "dB", "images")
    whole = frame.filter(pl.col("metric") == "fd")
    assert whole["variance"].null_count() == len(whole)
    assert whole["masked_share"].unique().to_list() == [0.25]


def test_curves_keep_at_most_200_evenly_spaced_points_with_both_ends(make_paper, make_context):
    context = make_context(make_paper(), fill)
    judge(context, PROVENANCE)
    curves = pl.read_parquet(context.output / "curves.parquet")
    assert curves.columns == ["arm", "seed", "series", "step", "value", "unit"]
    loss = curves.filter((pl.col("arm") == "method") & (pl.col("seed") == 0) & (pl.col("series") == "loss"))
    steps = loss["step"].to_list()
    assert (len(steps), steps[0], steps[-1]) == (200, 0, 450)
    assert {b - a for a, b in itertools.pairwise(steps)} == {2, 3}
    assert loss["value"].to_list() == [1 / (step + 1) for step in steps]
    assert curves.filter(pl.col("series") == "accuracy")["step"].to_list() == [450] * 7


def test_judging_twice_gives_the_same_bytes(make_paper, make_context):
    context = make_context(make_paper(), fill)
    judge(context, PROVENANCE)
    first = {path.name: path.read_bytes() for path in context.output.iterdir()}
    judge(context, PROVENANCE)
    assert first == {path.name: path.read_bytes() for path in context.output.iterdir()}


def test_derived_metrics_can_be_named_in_claims_and_figures_are_left_in_place(make_paper, make_context):
    paper = make_paper([{"id": "derived", "tests": [{"metric": "slope", "arm": "method", "above": 0.9}]}])
    context = make_context(paper, fill)

    def derive(stage):
        (stage.output / "figures").mkdir()
        (stage.output / "figures" / "curve.svg").write_text("<svg/>")
        tables = {}
        for (arm, seed), run in stage.evaluations.items():
            frame = pl.read_parquet(run / "metrics.parquet").group_by("at", maintain_order=True).agg(pl.mean("value"))
            tables[arm, seed] = MetricTable()
            tables[arm, seed].add("slope", round((frame["value"][1] - frame["value"][0]) / 4), unit="", samples=30)
        return tables

    judge(context, PROVENANCE, derive)
    assert read(context.output)["claims"][0]["verdict"] == "reproduced"
    assert (context.output / "figures" / "curve.svg").exists()
    assert "slope" in pl.read_parquet(context.output / "metrics.parquet")["metric"].to_list()


def test_a_derived_metric_may_not_replace_a_measured_one(make_paper, make_context):
    context = make_context(make_paper(), fill)

    def derive(stage):
        table = MetricTable()
        table.add("fd", 0.0, unit="", samples=1)
        return {("method", 0): table}

    with pytest.raises(MeasurementError, match="measured by the run already"):
        judge(context, PROVENANCE, derive)


def test_claims_of_other_variants_are_not_judged_and_a_demo_is_marked(make_paper, make_context):
    claims = [
        {"id": "here", "tests": [{"metric": "fd", "arm": "method", "above": 1}]},
        {"id": "there", "variant": "digits", "tests": [{"metric": "fd", "arm": "method", "above": 1}]},
        {"id": "shown", "variant": "photos", "tests": [{"metric": "fd", "arm": "codec", "above": 1}]},
    ]
    paper = make_paper(claims)
    found = {}
    for variant in paper.variants:
        context = make_context(paper, fill, variant=variant)
        judge(context, PROVENANCE)
        found[variant] = read(context.output)
        jsonschema.validate(found[variant], SCHEMA)
    assert {name: [claim["id"] for claim in record["claims"]] for name, record in found.items()} == {
        "shapes": ["here"],
        "digits": ["there"],
        "photos": ["shown"],
    }
    assert (found["photos"]["demo"], found["photos"]["canonical"]) == (True, False)


def test_a_missing_table_is_named(make_paper, make_context):
    context = make_context(make_paper(), fill)
    (context.evaluations["method", 1] / "metrics.parquet").unlink()
    with pytest.raises(MeasurementError, match=r"method/s1/run/metrics\.parquet is missing"):
        judge(context, PROVENANCE)
