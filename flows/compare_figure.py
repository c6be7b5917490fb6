"""The figure of `tessera compare`: a line per entry where a metric is followed along a number, else a row per entry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from flows.compare import Block, Entry, Sheet
from flows.ledger.measurements import parse_condition
from flows.studies.figures import STYLE

PALETTE = ("#1b6ca8", "#c8553d", "#4c9f70", "#8a6fb0", "#d9a441", "#8a8a8a", "#222222")
MARKERS = "osD^vP*"
_PANELS = 4  # conditions beside each other; more of them stand below


def draw(sheet: Sheet, path: Path) -> Path:
    """Draw a comparison and write it as SVG, the same bytes for the same numbers.

    Args:
        sheet: The comparison.
        path: File to write; its folder is made where it is missing.

    Returns:
        The path.
    """
    key = _numeric_key(sheet.blocks)
    intervals = "bars are 95% intervals over seeds and test items; where there is none, too few seeds were run"
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        FigureCanvasSVG(figure)
        if key:
            _lines(figure, sheet, key)
            caption = f"{sheet.title}, along {key}. Markers are means over seeds, {intervals}."
        else:
            _rows(figure, sheet)
            caption = f"{sheet.title}. Points are means over seeds, small marks single seeds, {intervals}."
        names = ", ".join(source.name for source in sheet.sources)
        metadata = {"Date": None, "Title": caption, "Description": f"{sheet.metric} of {names}, study {sheet.study}."}
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata=metadata)
    return path


def _numeric_key(blocks: Sequence[Block]) -> str:
    """Return the one key whose number tells the conditions apart; "" where there is none."""
    conditions = [parse_condition(block.at) for block in blocks]
    keys = {tuple(condition) for condition in conditions}
    if len(blocks) < 2 or len(keys) != 1:
        return ""
    varying = [key for key in next(iter(keys)) if len({condition[key] for condition in conditions}) > 1]
    if len(varying) != 1:
        return ""
    try:
        [float(condition[varying[0]]) for condition in conditions]
    except ValueError:
        return ""
    return varying[0]


def _lines(figure: Figure, sheet: Sheet, key: str) -> None:
    names = list(dict.fromkeys((entry.paper, entry.arm) for block in sheet.blocks for entry in block.entries))
    figure.set_size_inches(6.4, 3.6 + 0.16 * math.ceil(len(names) / 2))
    axes = figure.subplots()
    values = sorted(float(parse_condition(block.at)[key]) for block in sheet.blocks)
    for index, name in enumerate(sorted(names)):
        points = sorted(
            (float(parse_condition(block.at)[key]), entry)
            for block in sheet.blocks
            for entry in block.entries
            if (entry.paper, entry.arm) == name
        )
        x = [position for position, _ in points]
        y = [entry.estimate.value for _, entry in points]
        low, high = np.array([_reach(entry) for _, entry in points]).T
        axes.errorbar(
            x, y, yerr=(low, high), label=_name(sheet, *name), color=PALETTE[index % len(PALETTE)],
            marker=MARKERS[index // len(PALETTE) % len(MARKERS)], markersize=4, linewidth=1.2, capsize=2,
            elinewidth=0.8,
        )  # fmt: skip
    if values[0] > 0 and values[-1] / values[0] >= 8:
        axes.set_xscale("log", base=2)
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    axes.set_xlabel(key)
    axes.set_ylabel(_label(sheet))
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)


def _rows(figure: Figure, sheet: Sheet) -> None:
    columns = min(len(sheet.blocks), _PANELS)
    lines = math.ceil(len(sheet.blocks) / columns)
    longest = max(len(block.entries) for block in sheet.blocks)
    figure.set_size_inches(2.2 + 3.2 * columns, (0.9 + 0.24 * longest) * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for block, axes in zip(sheet.blocks, panels, strict=False):
        _panel(axes, block, sheet)
    for axes in list(panels)[len(sheet.blocks) :]:
        axes.remove()


def _panel(axes: Axes, block: Block, sheet: Sheet) -> None:
    papers = [source.paper.slug for source in sheet.sources]
    for row, entry in enumerate(block.entries):
        colour = PALETTE[papers.index(entry.paper) % len(PALETTE)]
        seeds = entry.quantity.values
        axes.plot(seeds, [row] * len(seeds), "|", color=colour, alpha=0.6, markersize=7)
        low, high = _reach(entry)
        axes.errorbar(entry.estimate.value, row, xerr=[[low], [high]], fmt="o", color=colour, markersize=4, capsize=2)
    axes.set_yticks(
        range(len(block.entries)), [_name(sheet, entry.paper, entry.arm) for entry in block.entries], fontsize=7
    )
    axes.invert_yaxis()
    axes.set_xlabel(_label(sheet))
    if block.at:
        axes.set_title(block.at.replace(",", ", "), fontsize=9)


def _name(sheet: Sheet, paper: str, arm: str) -> str:
    return arm if len(sheet.sources) == 1 else f"{paper}: {arm}"


def _reach(entry: Entry) -> tuple[float, float]:
    """How far the interval reaches below and above the mean; zero where there is none."""
    estimate = entry.estimate
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return 0.0, 0.0
    return estimate.value - estimate.low, estimate.high - estimate.value


def _label(sheet: Sheet) -> str:
    return f"{sheet.metric} ({sheet.fact.unit})" if sheet.fact.unit else sheet.metric
