"""The judge stage: measurements of a variant in; verdicts, mean metrics, thinned curves and figures out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.metrics.tables import MetricTable, write_parquet
from flows.declarations.paper import KOfN
from flows.ledger.hashes import directory_md5
from flows.ledger.measurements import Measurements, thinned_curves
from flows.ledger.verdicts import Judgement, Outcome, claims_of, constant_arms, judge_claim
from flows.studies.context import JudgeContext

Derive = Callable[[JudgeContext], Mapping[tuple[str, int], MetricTable] | None]


def judge(context: JudgeContext, provenance: Mapping[str, Any], derive: Derive | None = None) -> None:
    """Judge one variant of a paper.

    Args:
        context: The runs to judge and where to write.
        provenance: "git_commit" (text) and "machine" (what the judge itself runs on; used where no run recorded its
            own).
        derive: The study's `derive`: writes `figures/*.svg` below `context.output` and may return further metrics by
            (arm, seed), which claims can then name like measured ones.

    Raises:
        MeasurementError: A claim names a metric, an arm or a condition that was not measured.
    """
    derived = derive(context) if derive is not None else None
    measurements = Measurements(context.evaluations, constant_arms(context.paper), derived)
    judgements = [
        judge_claim(claim, measurements, context.profile) for claim in claims_of(context.paper, context.variant)
    ]
    write_parquet(measurements.frame(), context.output / "metrics.parquet")
    write_parquet(measurements.summary(), context.output / "summary.parquet")
    write_parquet(thinned_curves(_trainings(context)), context.output / "curves.parquet")
    record = verdict_record(context, judgements, provenance)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (context.output / "verdicts.json").write_text(text, encoding="utf-8")


def verdict_record(context: JudgeContext, judgements: list[Judgement], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `verdicts.json`, as params/schema/verdicts.schema.json describes it."""
    variant = context.paper.variants[context.variant]
    stages = _stages(context)
    environments = [environment for path in stages.values() if (environment := _environment(path))]
    machines = [environment["machine"] for environment in environments] or [provenance.get("machine") or {}]
    seconds = [float(environment["wall_seconds"]) for environment in environments]
    return {
        "paper": context.paper.slug,
        "variant": context.variant,
        "canonical": variant.canonical,
        "demo": variant.demo,
        "profile": context.profile,
        "claims": [_claim(judgement) for judgement in judgements],
        "minutes": round(sum(seconds) / 60, 3) if seconds else None,
        "timed_stages": len(seconds),
        "machine": _merged(machines),
        "git_commit": provenance.get("git_commit", ""),
        "stages": {name: directory_md5(path) for name, path in stages.items()},
    }


def _stages(context: JudgeContext) -> dict[str, Path]:
    """Run directories by DVC stage name, each directory once, in a fixed order."""
    return {
        f"{context.variant}-{kind}-{arm}-s{seed}": path
        for kind, runs in (("train", _trainings(context)), ("evaluate", context.evaluations))
        for (arm, seed), path in sorted(runs.items())
    }


def _trainings(context: JudgeContext) -> dict[tuple[str, int], Path]:
    """Each trained run once, under the arm that trained it; arms that share a model name the same directory."""
    return {(context.paper.model_of(arm), seed): path for (arm, seed), path in context.trainings.items()}


def _environment(run: Path) -> dict[str, Any] | None:
    """What the stage recorded beside its run; a run restored from a cache has no record here."""
    path = run.parent / "log" / "environment.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _merged(machines: list[Mapping[str, Any]]) -> dict[str, Any]:
    """One description of all machines; where they differ, every value stands in it."""
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for machine in machines for key in machine):
        values = list(dict.fromkeys(machine.get(key) for machine in machines))
        merged[key] = values[0] if len(values) == 1 else " / ".join(map(str, values))
    return merged


def _claim(judgement: Judgement) -> dict[str, Any]:
    claim = judgement.claim
    return {
        "id": claim.id,
        "says": claim.says,
        "cites": claim.cites,
        "scope": claim.scope,
        "verdict": judgement.verdict,
        "join": f"{claim.join.k_of_n}_of_{len(claim.tests)}" if isinstance(claim.join, KOfN) else claim.join,
        "tests": [_test(outcome) for outcome in judgement.outcomes],
        "gates": [_test(outcome) for outcome in judgement.gates],
        "note": judgement.note,
    }


def _test(outcome: Outcome) -> dict[str, Any]:
    estimate = outcome.estimate
    return {
        "test": outcome.test,
        "group": outcome.group,
        "estimate": _finite(estimate.value),
        "interval": [_finite(estimate.low), _finite(estimate.high)],
        "bar": outcome.bar,
        "accepts": [_finite(end) for end in outcome.accepts],
        "unit": outcome.unit,
        "seeds": estimate.seeds,
        "samples": estimate.samples,
        "holds": outcome.standing,
        "by_seed": [{"seed": seed, "value": _finite(value)} for seed, value in sorted(estimate.by_seed.items())],
        "reason": outcome.reason,
        "note": outcome.note,
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: an open end and an undefined estimate are null."""
    return float(value) if math.isfinite(value) else None
