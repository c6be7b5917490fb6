"""Peak memory of every stage of the small profile that was run, as `results/<slug>/costs.json` keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.declarations.workspace import Workspace
from flows.ledger.budgets import MOST_GIB, budgets

pytestmark = pytest.mark.benchmark_bar

ROOT = Path(__file__).parents[2]


def test_no_stage_of_the_small_profile_took_three_gibibytes(benchmark):
    workspace = Workspace.load(ROOT)
    found = benchmark.pedantic(lambda: budgets(workspace), rounds=1)
    peaks = {
        f"{budget.slug}/{budget.variant}": {
            "gibibytes": round(budget.peak, 3), "stage": budget.peak_stage, "stages": budget.stages
        }
        for budget in found
        if budget.stages
    }  # fmt: skip
    if not peaks:
        pytest.skip("no paper has recorded what its stages cost")
    benchmark.extra_info.update(ours=max(peak["gibibytes"] for peak in peaks.values()), peaks=peaks)
    assert benchmark.extra_info["ours"] < MOST_GIB
