"""Derived metrics of the claims, and figures: who routes better, and what comes out at four steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from components.metrics.tables import MetricTable
from flows.studies.context import JudgeContext
from flows.studies.discrete_diffusion.evaluate import OUTPUTS_FILE
from flows.studies.discrete_diffusion.judge import QualityFigures, quality_figure

LABELS = {
    "rdm_multinomial_topk": "words as noise, by confidence",
    "multinomial_random_routing": "same network, by coins",
    "multinomial_vanilla": "words as noise, vanilla",
    "rdm_absorbing_topk": "masks, by confidence",
    "absorbing_random_routing": "same network, by coins (masks)",
    "absorbing_vanilla": "masks, vanilla",
    "cmlm": "Mask-Predict",
    "ar_greedy": "left to right",
}
MT_LABELS = {
    "mt_topk": "weight 1 - (t - 1)/T, by confidence",
    "mt_random_routing": "same network, by coins",
    "mt_vlb_topk": "weight 1/t of the bound, by confidence",
    "mt_vlb_random_routing": "the bound's network, by coins",
    "mt_ar": "left to right",
}
WEIGHTS = ("rdm_absorbing_topk", "rdm_absorbing_vlb")
WEIGHT_STEPS, FEW, MANY = 8, 2, 16
_EXAMPLE_STEPS, _EXAMPLES, _LINE = 4, 4, 86


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures of the variant and return the metrics that compare arms."""
    figures = QualityFigures(stage)
    if figures.has("mt_topk"):
        quality_figure(
            figures,
            MT_LABELS,
            lines=("mt_ar",),
            metric="bleu",
            quality="BLEU (percent)",
            caption=(
                "Left: BLEU of German to English against the number of steps, each network decoded in two ways; points "
                "are means over three networks, bars span them; a dotted line, where there is one, writes one token at "
                "a time. Right: bigrams of the same token twice, which blind parallel writing makes."
            ),
        )
        return closing_gap(stage)
    quality_figure(
        figures,
        LABELS,
        lines=("ar_greedy",),
        caption=(
            "Left: share of outputs that parse as a caption and say what the source says, against the number of "
            "decoding steps, true lengths, argmax predictions; points are means over seeds, bars span them, the dotted "
            "line writes one word at a time. Right: bigrams of the same word twice."
        ),
    )
    example_figure(figures)
    return weight_gain(stage)


def _values(path: Path, metric: str, at: str) -> np.ndarray:
    frame = pl.read_parquet(path / "metrics.parquet")
    return frame.filter((pl.col("metric") == metric) & (pl.col("at") == at)).sort("sample")["value"].to_numpy()


def weight_gain(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Return for each seed the better validity of both weights, and the size of their mean difference."""
    steps = _steps(stage, WEIGHTS[0], WEIGHT_STEPS)
    means = {
        (arm, seed): float(_values(path, "validity", f"steps={steps}").mean())
        for (arm, seed), path in stage.evaluations.items()
        if arm in WEIGHTS
    }
    seeds = sorted(
        {seed for arm, seed in means if arm == WEIGHTS[0]} & {seed for arm, seed in means if arm == WEIGHTS[1]}
    )
    if not seeds:
        return {}
    gain = np.mean([means[WEIGHTS[0], seed] - means[WEIGHTS[1], seed] for seed in seeds])
    tables = {}
    for seed in seeds:
        table = tables[WEIGHTS[0], seed] = MetricTable()
        better = max(means[arm, seed] for arm in WEIGHTS)
        table.add("validity_of_better", better, unit="share", samples=1)
        table.add("weight_gain_size", abs(gain), unit="share", samples=1)
    return tables


def closing_gap(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Return by how much the gain in BLEU at few steps exceeds that at many, one row per sentence."""
    tables = {}
    for (arm, seed), path in stage.evaluations.items():
        other = stage.evaluations.get(("mt_random_routing", seed))
        if arm != "mt_topk" or other is None:
            continue
        few, many = (
            _values(path, "bleu", f"steps={steps}") - _values(other, "bleu", f"steps={steps}")
            for steps in (_steps(stage, arm, FEW), _steps(stage, arm, MANY))
        )
        names = pl.read_parquet(path / "metrics.parquet").filter(pl.col("metric") == "bleu")["sample"].unique().sort()
        table = tables[arm, seed] = MetricTable()
        table.add_items("routing_gap_closing", few - many, unit="percent", items=names.to_list())
    return tables


def _steps(stage: JudgeContext, arm: str, wanted: int) -> int:
    """Return the number of steps that was measured nearest to the wanted one (the smoke profile measures few)."""
    path = next(path for (name, _), path in sorted(stage.evaluations.items()) if name == arm)
    frame = pl.read_parquet(path / OUTPUTS_FILE)
    return min(frame["steps"].unique().to_list(), key=lambda steps: (abs(steps - wanted), steps))


def example_figure(figures: QualityFigures) -> None:
    """Write down what the decoders made of the same sources."""
    arms = [arm for arm in LABELS if figures.has(arm) and arm != "ar_greedy"]
    steps = _steps(figures.stage, arms[0], _EXAMPLE_STEPS)
    caption = f"What each decoder makes of the same test sources in {steps} steps, seed of the first run."
    columns = {}
    for arm in arms:
        run = next(iter(figures.runs(arm).values()))
        columns[arm] = pl.read_parquet(run / OUTPUTS_FILE).filter(pl.col("steps") == steps)
    sources = columns[arms[0]]["source"].to_list()[:_EXAMPLES]
    # A line for the source, one for each decoder and an empty one.
    height = len(sources) * (len(arms) + 2)
    with figures.figure("outputs", caption, 1, 1, (8.6, 0.2 * height)) as (_, axes):
        axis = axes[0, 0]
        axis.set_axis_off()
        axis.set(xlim=(0, 1), ylim=(height, 0))
        for example, source in enumerate(sources):
            top = example * (len(arms) + 2) + 0.5
            _line(axis, top, "source", source, "bold")
            for place, arm in enumerate(arms, start=1):
                _line(axis, top + place, LABELS[arm], columns[arm]["text"][example], "normal")


def _line(axis: Axes, height: float, label: str, text: str, weight: str) -> None:
    axis.text(0, height, label, fontsize=8, color="#5f6b73", fontweight=weight)
    axis.text(0.3, height, text if len(text) <= _LINE else text[: _LINE - 1] + "…", fontsize=8, fontweight=weight)
