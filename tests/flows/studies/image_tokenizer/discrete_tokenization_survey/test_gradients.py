"""The study of gradient estimators: what is written, at which temperatures, and that the claims can read it."""

from pathlib import Path

import polars as pl
import pytest
import torch

from components.analysis.gradient_bias import draw_problems, measure
from components.errors import TesseraError
from components.training.determinism import derive_seed
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.discrete_tokenization_survey import gradients
from flows.studies.image_tokenizer.discrete_tokenization_survey.params import METRICS

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("discrete-tokenization-survey")
VARIANT = PAPER.canonical
ARMS = ("ste", "gumbel_relaxed", "gumbel_st", "rotation_trick", "reinforce")


def evaluated(folder: Path, arm: str, seed=0, **changes) -> pl.DataFrame:
    params = resolve(PAPER, VARIANT, arm, "smoke", "evaluate").model_copy(update=changes)
    folder.mkdir(parents=True, exist_ok=True)
    gradients.evaluate(
        StageContext("evaluate", PAPER.slug, VARIANT, arm, seed, "smoke", params, {}, folder, folder, folder)
    )
    return pl.read_parquet(folder / "metrics.parquet")


@pytest.mark.parametrize("arm", ARMS)
def test_every_metric_is_declared_and_stands_at_every_temperature(arm, tmp_path):
    table = evaluated(tmp_path, arm)
    assert all(METRICS[row["metric"]].unit == row["unit"] for row in table.to_dicts())
    conditions = {"tau=1", "tau=0.3", "tau=0.1", "tau=0.03"} if arm.startswith("gumbel") else {""}
    for metric in ("bias", "bias_low_99", "bias_high_99", "variance", "cosine", "draw_cosine"):
        assert set(table.filter(pl.col("metric") == metric)["at"]) == conditions


def test_the_interval_is_that_of_the_mean_of_independent_errors(tmp_path):
    table = evaluated(tmp_path, "ste", draws=400, problems=5)
    params = resolve(PAPER, VARIANT, "ste", "smoke", "evaluate")
    problems = draw_problems(5, params.toy_codes, params.toy_dim, params.assignment_temperature,
                             torch.Generator().manual_seed(derive_seed(0, 3)))  # fmt: skip
    scale = float(problems.true_gradient().double().norm(dim=1).mean())
    found = measure(problems, "ste", 400, derive_seed(0, 4))
    mean = float(found.bias.mean()) / scale
    error = float((found.bias_error**2).sum()) ** 0.5 / 5 / scale
    values = {row["metric"]: row["value"] for row in table.filter(pl.col("sample").is_null()).to_dicts()}
    assert values["truth_norm"] == pytest.approx(scale)
    assert values["bias_low_99"] == pytest.approx(mean - 2.5758 * error, abs=1e-4)
    assert values["bias_high_99"] == pytest.approx(mean + 2.5758 * error, abs=1e-4)
    biases = table.filter(pl.col("metric") == "bias")["value"]
    assert biases.mean() == pytest.approx(mean)


def test_estimators_of_a_seed_share_problems_and_other_seeds_have_others(tmp_path):
    names = {}
    for arm, seed in (("ste", 0), ("reinforce", 0), ("ste", 1)):
        table = evaluated(tmp_path / f"{arm}{seed}", arm, seed)
        norm = table.filter(pl.col("metric") == "truth_norm")["value"].item()
        names[arm, seed] = (norm, set(table.filter(pl.col("metric") == "bias")["sample"]))
    assert names["ste", 0] == names["reinforce", 0]
    assert names["ste", 1][0] != names["ste", 0][0]
    assert not names["ste", 1][1] & names["ste", 0][1]


def test_there_is_nothing_to_train(tmp_path):
    params = resolve(PAPER, VARIANT, "ste", "smoke", "train")
    assert not any(PAPER.arms[arm].trains for arm in ARMS)
    stage = StageContext("train", PAPER.slug, VARIANT, "ste", 0, "smoke", params, {}, tmp_path, tmp_path, tmp_path)
    with pytest.raises(TesseraError, match="trained: false"):
        gradients.train(stage)
