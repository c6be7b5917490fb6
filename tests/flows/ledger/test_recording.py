"""What a judged variant leaves beside its results: costs that survive a restored stage, tiers, history."""

import json

import pytest

from flows.declarations.paper import Paper
from flows.declarations.stages import plan_stages
from flows.declarations.workspace import Workspace
from flows.ledger import costs, history
from flows.ledger.evidence import TIERS, tier
from flows.ledger.recording import record
from flows.ledger.results import ResultsError

from .conftest import PAPER


def environment(root, stage, seconds=6.0, memory=2**30):
    log = root / stage.log
    log.mkdir(parents=True, exist_ok=True)
    values = {
        "wall_seconds": seconds,
        "cpu_seconds": seconds / 2,
        "peak_memory_bytes": memory,
        "ended": "2026-11-25T12:00:00+00:00",
        "machine": {"processor": "a CPU"},
    }
    (log / "environment.json").write_text(json.dumps(values))
    return log / "environment.json"


def stages_of(paper):
    return [stage for stage in plan_stages(paper, "shapes", "small") if stage.kind != "judge"]


def test_every_stage_keeps_its_time_and_memory(tmp_path, make_paper):
    paper = make_paper()
    for stage in stages_of(paper):
        environment(tmp_path, stage)
    assert costs.write(tmp_path, paper, "shapes", "small")
    found = costs.read(tmp_path, paper.slug, "shapes", "small")
    assert set(found) == {stage.name for stage in stages_of(paper)}
    first = found[stages_of(paper)[0].name]
    assert (first.wall_seconds, first.cpu_seconds, first.peak_memory_bytes) == (6.0, 3.0, 2**30)
    assert (first.ended, first.processor) == ("2026-11-25T12:00:00+00:00", "a CPU")
    assert costs.read(tmp_path, paper.slug, "shapes", "full") == {}


def test_a_stage_that_was_restored_keeps_what_was_known_and_one_that_is_gone_does_not(tmp_path, make_paper):
    paper = make_paper()
    files = [environment(tmp_path, stage, seconds=10.0) for stage in stages_of(paper)]
    costs.write(tmp_path, paper, "shapes", "small")
    before = costs.read(tmp_path, paper.slug, "shapes", "small")
    files[0].unlink()
    environment(tmp_path, stages_of(paper)[1], seconds=20.0)
    assert costs.write(tmp_path, paper, "shapes", "small")
    after = costs.read(tmp_path, paper.slug, "shapes", "small")
    names = [stage.name for stage in stages_of(paper)]
    assert after[names[0]] == before[names[0]]
    assert after[names[1]].wall_seconds == 20.0
    assert not costs.write(tmp_path, paper, "shapes", "small")
    without = Paper.model_validate(
        PAPER | {"arms": {name: arm for name, arm in PAPER["arms"].items() if name != "codec"}}
    )
    assert costs.write(tmp_path, without, "shapes", "small")
    assert not any("codec" in name for name in costs.read(tmp_path, paper.slug, "shapes", "small"))


def test_a_damaged_file_of_costs_says_how_to_restore_it(tmp_path, make_paper):
    paper = make_paper()
    environment(tmp_path, stages_of(paper)[0])
    costs.write(tmp_path, paper, "shapes", "small")
    (tmp_path / "results" / paper.slug / costs.FILE).write_text("{")
    with pytest.raises(ResultsError, match="git checkout --"):
        costs.read(tmp_path, paper.slug, "shapes", "small")


@pytest.mark.parametrize(
    "released, verdict, expected",
    [
        ([], "reproduced", "reimplemented here"),
        (["method"], "contradicted", "reimplemented here"),
        (["method", "baseline"], "inconclusive", "rerun here"),
        (["method", "baseline"], "out of scale", "out of scale"),
        (["method", "baseline"], "not run yet", "reported by the paper"),
        ([], "not run yet", "reported by the paper"),
    ],
)
def test_a_tier_is_that_of_the_weakest_arm(released, verdict, expected):
    arms = {name: arm | ({"released": "owner/name"} if name in released else {}) for name, arm in PAPER["arms"].items()}
    paper = Paper.model_validate(PAPER | {"arms": arms})
    assert tier(paper, paper.claims[0], verdict) == expected
    assert expected in TIERS


def verdicts_of(paper, directory, **changes):
    test = {"test": "t", "estimate": 2.0, "interval": [1.9, 2.1], "bar": 1.0, "holds": "holds"}
    claims = [{"id": claim.id, "verdict": "reproduced", "tests": [test]} for claim in paper.claims]
    content = {
        "paper": paper.slug,
        "variant": "shapes",
        "canonical": True,
        "demo": False,
        "profile": "small",
        "claims": claims,
        "git_commit": "a" * 40,
        "stages": {},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "verdicts.json").write_text(json.dumps(content | changes))


def test_a_judged_variant_leaves_history_with_tiers_and_costs(tmp_path, make_paper):
    paper, results = make_paper(), tmp_path / "results" / "toy-paper" / "shapes"
    environment(tmp_path, stages_of(paper)[0])
    verdicts_of(paper, results)
    assert record(Workspace(tmp_path), paper, results, "2026-11-25")
    assert not record(Workspace(tmp_path), paper, results, "2026-11-26")
    (entry,) = history.read(tmp_path / "results" / "toy-paper")
    assert [claim["tier"] for claim in entry["claims"]] == ["reimplemented here"]
    assert costs.read(tmp_path, "toy-paper", "shapes", "small")


def test_better_evidence_for_the_same_numbers_is_news(tmp_path, make_paper):
    paper, results = make_paper(), tmp_path / "results" / "toy-paper" / "shapes"
    verdicts_of(paper, results)
    record(Workspace(tmp_path), paper, results, "2026-11-25")
    arms = {name: arm | {"released": "owner/name"} for name, arm in PAPER["arms"].items()}
    assert record(Workspace(tmp_path), Paper.model_validate(PAPER | {"arms": arms}), results, "2026-11-26")
    assert [entry["claims"][0]["tier"] for entry in history.read(results.parent)] == [
        "reimplemented here",
        "rerun here",
    ]


def test_a_smoke_run_leaves_nothing(tmp_path, make_paper):
    paper, results = make_paper(), tmp_path / "results" / "toy-paper" / "shapes"
    verdicts_of(paper, results, profile="smoke")
    assert not record(Workspace(tmp_path), paper, results, "2026-11-25")
    assert sorted(path.name for path in results.parent.iterdir()) == ["shapes"]
